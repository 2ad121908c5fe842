-- _standing: one row per line of a retraction that no other one takes back.
CREATE VIEW _standing AS
WITH written AS (
    FROM {retractions}
)

SELECT *
FROM written
WHERE takes_back IS NULL
    AND retraction_id NOT IN (SELECT takes_back FROM written WHERE takes_back IS NOT NULL);

-- retractions: one row per line of a retraction, also of one that was taken back (stands is false). A line names a cell,
-- a run or import, a model that has nothing left, or the retraction that it takes back. The other views leave out what a
-- standing retraction names.
CREATE VIEW retractions AS
WITH written AS (
    FROM {retractions}
)

SELECT
    *,
    takes_back IS NULL
    AND retraction_id NOT IN (SELECT takes_back FROM written WHERE takes_back IS NOT NULL) AS stands
FROM written;

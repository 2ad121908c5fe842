-- _retracted: one row per range of a cell's items that does not count up to a generation. Empty in most lakes.
CREATE VIEW _retracted AS
SELECT
    cell_id,
    coalesce(first_item, 0) AS first_item,
    coalesce(last_item, 2147483647) AS last_item,
    max(generation) AS generation
FROM _standing
WHERE cell_id IS NOT NULL
GROUP BY ALL;

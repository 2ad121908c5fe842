-- _members: one row per cell with a scored item, and the pool that it is in: cells whose verdicts can be compared item by
-- item, which are those of one task, items, prompting, dtype, quantization and metric.
CREATE VIEW _members AS
SELECT
    cells.*,
    min(cell_id) OVER same_group AS pool,
    count(*) OVER same_group AS models
FROM cells
INNER JOIN _totals USING (cell_id)
WHERE _totals.scored > 0
WINDOW same_group AS (PARTITION BY task, items_digest, prompting, dtype, quantization, metric);

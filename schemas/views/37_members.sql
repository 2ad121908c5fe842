-- _members: one row per cell with a scored item, and the pool that it is in: cells whose verdicts can be compared item by
-- item, which are those of one task, items, prompting, dtype, quantization and metric. pool: its first cell; pool_number
-- and member are the same as numbers, which group and compare several times as fast as texts. is_binary: every score of
-- the pool is 0 or 1, and more is better.
CREATE VIEW _members AS
SELECT
    cells.*,
    min(cell_id) OVER same_group AS pool,
    count(*) OVER same_group AS models,
    dense_rank() OVER (ORDER BY task, items_digest, prompting, dtype, quantization, metric)::INTEGER AS pool_number,
    row_number() OVER (ORDER BY model, cell_id)::INTEGER AS member,
    bool_and(zero_or_one AND higher_is_better) OVER same_group AS is_binary
FROM cells
INNER JOIN _totals USING (cell_id)
WHERE _totals.scored > 0
WINDOW same_group AS (PARTITION BY task, items_digest, prompting, dtype, quantization, metric);

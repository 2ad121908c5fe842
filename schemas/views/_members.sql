-- _members: one row per cell with a scored item, with its pool: the cells whose verdicts can be compared item by item,
-- because task, items, prompting, dtype, quantization and metric are equal. pool is the pool's first cell; pool_number
-- and member stand for pool and cell as numbers, which group and compare several times as fast as texts. merit_sign: a
-- larger score × merit_sign is better. The prices are those of the cell's model (model_prices), as the view costs
-- applies them.
CREATE VIEW _members AS
SELECT
    cells.*,
    min(cell_id) OVER same_group AS pool,
    count(*) OVER same_group AS models,
    dense_rank() OVER (ORDER BY task, items_digest, prompting, dtype, quantization, metric)::INTEGER AS pool_number,
    row_number() OVER (ORDER BY model, cell_id)::INTEGER AS member,
    CASE WHEN higher_is_better THEN 1 ELSE -1 END::DOUBLE AS merit_sign,
    usd_per_million_prompt,
    CASE WHEN imported_from IS NOT NULL THEN usd_per_million_cached END AS usd_per_million_cached,
    usd_per_million_completion,
    usd_per_request
FROM cells
INNER JOIN _totals USING (cell_id)
INNER JOIN model_prices USING (model)
WHERE _totals.scored > 0
WINDOW same_group AS (PARTITION BY task, items_digest, prompting, dtype, quantization, metric);

-- cheapest_correct: one row per pool (as in oracle) and item: the cheapest of the models that are right, of those whose
-- cost is known (USD, view costs). model null: nobody is right, or of nobody who is the cost is known (models_correct
-- tells which). An item without a verdict of a model is no wrong answer: models_scored < models.
CREATE VIEW cheapest_correct AS
WITH chosen AS (
    SELECT
        _members.pool,
        costs.item,
        any_value(_members.models) AS models,
        count(costs.correct) AS models_scored,
        count(*) FILTER (costs.correct) AS models_correct,
        arg_min(costs.cell_id, usd) FILTER (costs.correct) AS cell_id,
        min(usd) FILTER (costs.correct) AS usd
    FROM costs
    INNER JOIN _members USING (cell_id)
    GROUP BY _members.pool, costs.item
)

SELECT
    pools.task,
    chosen.item,
    chosen.models,
    chosen.models_scored,
    chosen.models_correct,
    cells.model,
    chosen.usd,
    pools.items_digest,
    pools.prompting,
    pools.dtype,
    pools.quantization,
    pools.metric,
    pools.imported_from,
    chosen.cell_id,
    chosen.pool
FROM chosen
INNER JOIN cells AS pools ON chosen.pool = pools.cell_id
LEFT JOIN cells ON chosen.cell_id = cells.cell_id;

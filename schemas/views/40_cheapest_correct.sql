-- cheapest_correct: one row per pool (as in oracle) and item: the cheapest of the models that are right, of those whose
-- cost is known (USD, view costs), of equals the first by name. model null: nobody is right, or of nobody who is the cost
-- is known (models_correct tells which). An item without a verdict of a model is no wrong answer: models_scored < models.
CREATE VIEW cheapest_correct AS
WITH chosen AS (
    SELECT
        _members.pool_number,
        costs.item,
        count(costs.correct) AS models_scored,
        count(*) FILTER (costs.correct) AS models_correct,
        (min((usd, _members.member)) FILTER (costs.correct AND usd IS NOT NULL))[2] AS member,
        min(usd) FILTER (costs.correct) AS usd
    FROM costs
    INNER JOIN _members USING (cell_id)
    GROUP BY _members.pool_number, costs.item
)

SELECT
    pools.task,
    chosen.item,
    pools.models,
    chosen.models_scored,
    chosen.models_correct,
    _members.model,
    chosen.usd,
    pools.items_digest,
    pools.prompting,
    pools.dtype,
    pools.quantization,
    pools.metric,
    pools.imported_from,
    _members.cell_id,
    pools.pool
FROM chosen
INNER JOIN _members AS pools ON chosen.pool_number = pools.pool_number AND pools.cell_id = pools.pool
LEFT JOIN _members ON chosen.member = _members.member;

-- oracle_items: one row per pool (as in oracle) and item that any of its models scored: what the best answer scores, and
-- what it costs at least. Among the models with the best score the cheapest counts, of those whose cost is known (USD,
-- view costs); where none is, the first by name, and usd is null. models_scored < models: some model has no verdict.
CREATE VIEW oracle_items AS
WITH answers AS NOT MATERIALIZED (
    SELECT _members.pool, _members.models, _members.higher_is_better, costs.*
    FROM costs
    INNER JOIN _members USING (cell_id)
    WHERE costs.score IS NOT NULL
),

best AS (
    SELECT
        pool,
        item,
        any_value(models) AS models,
        count(*) AS models_scored,
        count(*) FILTER (correct) AS models_correct,
        CASE WHEN any_value(higher_is_better) THEN max(score) ELSE min(score) END AS best_score
    FROM answers
    GROUP BY pool, item
),

chosen AS (
    SELECT
        answers.pool,
        answers.item,
        coalesce(arg_min(answers.cell_id, usd), min(answers.cell_id)) AS cell_id,
        min(usd) AS usd
    FROM answers
    INNER JOIN best ON answers.pool = best.pool AND answers.item = best.item AND answers.score = best.best_score
    GROUP BY answers.pool, answers.item
)

SELECT
    _members.task,
    best.item,
    best.models,
    best.models_scored,
    best.models_correct,
    best.best_score,
    _members.model,
    chosen.usd,
    _members.items_digest,
    _members.prompting,
    _members.dtype,
    _members.quantization,
    _members.metric,
    _members.imported_from,
    chosen.cell_id,
    best.pool
FROM best
INNER JOIN chosen ON best.pool = chosen.pool AND best.item = chosen.item
INNER JOIN _members USING (cell_id);

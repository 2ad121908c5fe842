-- oracle_items: one row per pool (as in oracle) and item that any of its models scored: what the best answer scores, and
-- what it costs at least. Among the models with the best score the cheapest counts, of those whose cost is known (USD,
-- view costs), of equals the first by name; where none is known, the first by name, and usd is null.
-- models_scored < models: some model has no verdict.
CREATE VIEW oracle_items AS
WITH answers AS NOT MATERIALIZED (
    SELECT pool_number, member, is_binary, _members.higher_is_better, costs.item, costs.score, costs.correct, costs.usd
    FROM costs
    INNER JOIN _members USING (cell_id)
    WHERE costs.score IS NOT NULL
),

-- Where scores are 0 or 1 one pass tells all: the best are those with 1, or if there are none all.
binary_items AS (
    SELECT
        pool_number,
        item,
        count(*) AS models_scored,
        count(*) FILTER (correct) AS models_correct,
        max(score) AS best_score,
        CASE WHEN best_score = 1 THEN min(usd) FILTER (score = 1) ELSE min(usd) END AS usd,
        CASE
            WHEN best_score = 1
                THEN coalesce(
                    (min((usd, member)) FILTER (score = 1 AND usd IS NOT NULL))[2], min(member) FILTER (score = 1)
                )
            ELSE coalesce((min((usd, member)) FILTER (usd IS NOT NULL))[2], min(member))
        END AS member
    FROM answers
    WHERE is_binary
    GROUP BY pool_number, item
),

best AS (
    SELECT
        pool_number,
        item,
        count(*) AS models_scored,
        count(*) FILTER (correct) AS models_correct,
        CASE WHEN any_value(higher_is_better) THEN max(score) ELSE min(score) END AS best_score
    FROM answers
    WHERE NOT is_binary
    GROUP BY pool_number, item
),

other_items AS (
    SELECT
        best.pool_number,
        best.item,
        any_value(best.models_scored) AS models_scored,
        any_value(best.models_correct) AS models_correct,
        any_value(best.best_score) AS best_score,
        min(usd) AS usd,
        coalesce((min((usd, answers.member)) FILTER (usd IS NOT NULL))[2], min(answers.member)) AS member
    FROM answers
    INNER JOIN best
        ON answers.pool_number = best.pool_number AND answers.item = best.item AND answers.score = best.best_score
    WHERE NOT is_binary
    GROUP BY best.pool_number, best.item
)

SELECT
    _members.task,
    chosen.item,
    _members.models,
    chosen.models_scored,
    chosen.models_correct,
    chosen.best_score,
    _members.model,
    chosen.usd,
    _members.items_digest,
    _members.prompting,
    _members.dtype,
    _members.quantization,
    _members.metric,
    _members.imported_from,
    _members.cell_id,
    _members.pool
FROM (FROM binary_items UNION ALL BY NAME FROM other_items) AS chosen
INNER JOIN _members USING (member);

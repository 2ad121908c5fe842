-- oracle: one row per task, items, prompting, dtype, quantization and metric: what choosing the best model for every
-- item would score, against the best single model.
-- The pool (models): the group's cells with at least one scored item. Everything is measured on the items that every
-- model of the pool scored (items), so a missing, unanswered or failed item is never counted as wrong and both sides
-- see the same items: gap is never negative. items_scored_by_any - items is what that leaves out; where it is large,
-- some model was collected on few items. No common item: the scores are null.
CREATE VIEW oracle AS
WITH members AS (
    SELECT
        cells.*,
        min(cell_id) OVER same_group AS pool,
        count(*) OVER same_group AS models
    FROM cells
    INNER JOIN _totals USING (cell_id)
    WHERE _totals.scored > 0
    WINDOW same_group AS (PARTITION BY task, items_digest, prompting, dtype, quantization, metric)
),

-- Read twice rather than kept: at 200M records the copy would not fit in memory.
answers AS NOT MATERIALIZED (
    SELECT members.pool, members.cell_id, members.models, members.higher_is_better, matrix.item, matrix.score
    FROM matrix
    INNER JOIN members USING (cell_id)
    WHERE matrix.score IS NOT NULL
),

items_of_pool AS (
    SELECT
        pool,
        item,
        count(*) = any_value(models) AS scored_by_all,
        CASE WHEN any_value(higher_is_better) THEN max(score) ELSE min(score) END AS best_score
    FROM answers
    GROUP BY pool, item
),

pools AS (
    SELECT
        pool,
        count(*) FILTER (scored_by_all) AS items,
        count(*) AS items_scored_by_any,
        avg(best_score) FILTER (scored_by_all) AS oracle_score
    FROM items_of_pool
    GROUP BY pool
),

singles AS (
    SELECT answers.cell_id, avg(answers.score) AS score
    FROM answers
    INNER JOIN items_of_pool ON answers.pool = items_of_pool.pool AND answers.item = items_of_pool.item
    WHERE items_of_pool.scored_by_all
    GROUP BY answers.cell_id
)

SELECT
    members.task,
    members.models,
    pools.items,
    pools.items_scored_by_any,
    members.metric,
    CASE WHEN singles.score IS NOT NULL THEN members.model END AS best_model,
    singles.score AS best_model_score,
    pools.oracle_score,
    -- greatest: the two means add the same numbers in another order, which can differ in the last bit.
    CASE WHEN singles.score IS NOT NULL THEN greatest(
        CASE WHEN members.higher_is_better THEN 1 ELSE -1 END * (pools.oracle_score - singles.score), 0
    ) END AS gap,
    members.num_fewshot,
    members.chat_template,
    members.prompting,
    members.items_digest,
    members.dtype,
    members.quantization,
    members.higher_is_better,
    members.imported_from,
    CASE WHEN singles.score IS NOT NULL THEN members.cell_id END AS best_cell_id
FROM members
INNER JOIN pools USING (pool)
LEFT JOIN singles USING (cell_id)
QUALIFY row_number() OVER (
    PARTITION BY members.pool
    ORDER BY
        CASE WHEN members.higher_is_better THEN -singles.score ELSE singles.score END NULLS LAST,
        members.model,
        members.cell_id
) = 1;

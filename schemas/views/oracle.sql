-- oracle: one row per task, items, prompting, dtype, quantization and metric: the score of choosing the best model for
-- each item, against the best single model.
-- The pool (models) is the group's cells with at least one scored item. All scores are over the items that every model
-- of the pool has a score on (items), so a missing, unanswered or failed item is never counted as wrong, both sides see
-- the same items, and gap is never negative. items_scored_by_any - items is the number of items left out; if it is
-- large, some model was collected on few items. Without a common item the scores are null.
CREATE VIEW oracle AS
-- Read twice rather than kept: at 200M records the copy would not fit in memory.
WITH answers AS NOT MATERIALIZED (
    SELECT _members.pool, _members.cell_id, _members.models, _members.higher_is_better, matrix.item, matrix.score
    FROM matrix
    INNER JOIN _members USING (cell_id)
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
    _members.task,
    _members.models,
    pools.items,
    pools.items_scored_by_any,
    _members.metric,
    CASE WHEN singles.score IS NOT NULL THEN _members.model END AS best_model,
    singles.score AS best_model_score,
    pools.oracle_score,
    -- greatest: the two means add the same numbers in another order, which can differ in the last bit.
    CASE WHEN singles.score IS NOT NULL THEN greatest(
        CASE WHEN _members.higher_is_better THEN 1 ELSE -1 END * (pools.oracle_score - singles.score), 0
    ) END AS gap,
    _members.num_fewshot,
    _members.chat_template,
    _members.prompting,
    _members.items_digest,
    _members.dtype,
    _members.quantization,
    _members.higher_is_better,
    _members.imported_from,
    CASE WHEN singles.score IS NOT NULL THEN _members.cell_id END AS best_cell_id
FROM _members
INNER JOIN pools USING (pool)
LEFT JOIN singles USING (cell_id)
QUALIFY row_number() OVER (
    PARTITION BY _members.pool
    ORDER BY
        CASE WHEN _members.higher_is_better THEN -singles.score ELSE singles.score END NULLS LAST,
        _members.model,
        _members.cell_id
) = 1;

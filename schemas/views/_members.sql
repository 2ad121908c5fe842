-- _members: one row per cell of a pool: per task the candidates that are not left out, and the pool of all tasks (is_all)
-- with those that every task has. That pool is there for two tasks and candidates or more whose scores can be averaged:
-- of one metric, or all in [0, 1]. pool_number and member stand for pool and candidate as numbers, which group and
-- compare several times as fast as texts. merit_sign: a larger score × merit_sign is better. The prices are those of the
-- cell (model_prices), as the view costs applies them.
CREATE VIEW _members AS
WITH kept AS (
    SELECT *
    FROM _pool_cells
    ANTI JOIN _left_out USING (task, cell_id)
),

common AS (
    SELECT candidate
    FROM kept
    GROUP BY candidate
    HAVING count(*) = (SELECT count(DISTINCT task) FROM kept)
),

pools AS (
    SELECT *, task AS pool, false AS is_all
    FROM kept
    UNION ALL
    SELECT *, 'all' AS pool, true AS is_all
    FROM kept
    SEMI JOIN common USING (candidate)
    WHERE (SELECT count(*) FROM common) > 1
        AND (
            SELECT
                count(DISTINCT task) > 1
                AND (
                    count(DISTINCT (metric, higher_is_better)) = 1
                    OR bool_and(higher_is_better AND correct_threshold IS NOT NULL)
                )
            FROM kept
        )
)

SELECT
    pools.*,
    count(DISTINCT candidate) OVER (PARTITION BY is_all, pool) AS candidates,
    dense_rank() OVER (ORDER BY is_all, pool)::INTEGER AS pool_number,
    dense_rank() OVER (ORDER BY candidate)::INTEGER AS member,
    CASE WHEN higher_is_better THEN 1 ELSE -1 END::DOUBLE AS merit_sign,
    usd_per_million_prompt,
    usd_per_million_cached,
    usd_per_million_cache_write,
    usd_per_million_completion,
    usd_per_million_reasoning,
    usd_per_request
FROM pools
INNER JOIN _cell_prices USING (cell_id);

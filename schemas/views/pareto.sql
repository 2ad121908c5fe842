-- pareto: one row per pool (view oracle) and candidate that no other of the pool beats: none has at least its score for
-- at most its cost with one of the two better. Scores and costs are over the questions that every one has a score for. Candidates without a
-- known cost are left out. usd_questions < questions: the cost is the mean of fewer questions than the score.
CREATE VIEW pareto AS
WITH singles AS (
    SELECT
        pool AS task,
        is_all,
        candidate,
        _mean(score, 1e12) AS score,
        1000 * _mean(usd, 1e18) AS usd_per_1000,
        count(score) AS questions,
        count(usd) FILTER (score IS NOT NULL) AS usd_questions,
        any_value(merit_sign) * _mean(score, 1e12) AS merit
    FROM _pool_answers
    WHERE is_complete
    GROUP BY pool, is_all, candidate
)

SELECT * EXCLUDE (merit, best_before)
FROM (
    SELECT
        *,
        max(merit) OVER (
            PARTITION BY is_all, task
            ORDER BY usd_per_1000, -merit
            RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW EXCLUDE GROUP
        ) AS best_before
    FROM singles
    WHERE usd_per_1000 IS NOT NULL AND score IS NOT NULL
)
WHERE best_before IS NULL OR merit > best_before;

-- pareto: one row per cell of the leaderboard that no other of the same task, items, prompting and metric beats: none has
-- at least its score for at most its cost, and one of them better. Cells whose cost is unknown are not compared;
-- usd_items < scored: its cost is the mean of fewer items than its score.
CREATE VIEW pareto AS
SELECT * EXCLUDE (merit, best_before)
FROM (
    SELECT
        *,
        CASE WHEN higher_is_better THEN score ELSE -score END AS merit,
        max(CASE WHEN higher_is_better THEN score ELSE -score END) OVER (
            PARTITION BY task, items_digest, prompting, metric
            ORDER BY usd_per_1000, CASE WHEN higher_is_better THEN -score ELSE score END
            RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW EXCLUDE GROUP
        ) AS best_before
    FROM leaderboard
    WHERE usd_per_1000 IS NOT NULL AND score IS NOT NULL
)
WHERE best_before IS NULL OR merit > best_before;

-- pareto: one row per cell of the leaderboard that no other of the same task, items, prompting and metric beats: no
-- cell has at least its score for at most its cost with one of the two better. Cells without a known cost are left out.
-- usd_items < scored: the cost is the mean of fewer items than the score.
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

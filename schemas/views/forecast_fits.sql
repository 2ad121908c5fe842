-- forecast_fits: one row per forecast, task and kind of check: what it learned from, and how it did on complete models
-- that were held out, at random or by whole families. The mean over all tasks has items_digest ''.
-- stale: why its numbers are of another lake; null: they are of this one. Imported and collected records are seen with the
-- --include that shows them; without it `stale` says which one is needed. is_shown: whether forecast_leaderboard and
-- forecast_matrix show it: the newest of the task that is not stale, or the newest where all are.
CREATE VIEW forecast_fits AS
WITH compared AS (
    SELECT
        fits.*,
        CASE
            WHEN fits.basis IS NULL OR fits.basis = now.basis THEN NULL
            WHEN now.basis IS NULL AND {include} = 'collected' AND starts_with(fits.prompting, 'i')
                THEN 'its records are imported and not shown here: add --include imported'
            WHEN now.basis IS NULL AND {include} = 'imported' AND NOT starts_with(fits.prompting, 'i')
                THEN 'its records are collected and not shown here: add --include collected'
            WHEN now.basis IS NULL THEN 'its cells are gone'
            ELSE 'cells or their scores changed since it was made'
        END AS changed
    FROM {forecast_fits} AS fits
    LEFT JOIN {basis_of_fits} AS now
        ON fits.task = now.task
        AND fits.items_digest = now.items_digest
        AND fits.prompting = now.prompting
        AND fits.metric = now.metric
),

judged AS (
    SELECT
        * EXCLUDE (changed),
        CASE WHEN items_digest = '' THEN max(changed) OVER (PARTITION BY forecast) ELSE changed END AS stale
    FROM compared
)

SELECT
    *,
    dense_rank() OVER (
        PARTITION BY task, items_digest, prompting, metric
        ORDER BY stale IS NOT NULL, number DESC, forecast
    ) = 1 AS is_shown
FROM judged;

-- forecast_leaderboard: one row per model and task of the shown forecasts (forecast_fits), and per model for the mean over
-- all tasks of a forecast (task 'all', items_digest ''). A whole cell is measured: its band is its score. Any other is
-- foretold: value is the expected score over all items of the task, within low and high for `level` of the models.
-- rank: 1 + the models whose whole band is better, so a model stands below another only where the two can be told apart.
-- One wide band links no others: models that overlap it may still be told apart from each other. rank_best, rank_worst: the
-- places that a model may have: the rank, and the place at the end if all that overlap were better. ORDER BY task, rank,
-- value DESC. Without a forecast of the task there is no row: the view leaderboard has what is measured.
CREATE VIEW forecast_leaderboard AS
WITH lengths AS (
    SELECT task, items_digest, prompting, metric, max(planned_items) AS items
    FROM cells
    GROUP BY task, items_digest, prompting, metric
),

-- Cells with a score for each item.
whole AS (
    SELECT
        cells.*,
        _totals.score,
        _totals.attempted::INTEGER AS attempted
    FROM cells
    INNER JOIN _totals USING (cell_id)
    INNER JOIN lengths USING (task, items_digest, prompting, metric)
    WHERE _totals.scored = lengths.items
),

-- The tasks of the forecast that is shown for the mean over all.
tasks_of_all AS (
    SELECT DISTINCT
        fits.forecast,
        fits.task,
        fits.items_digest,
        fits.prompting,
        fits.metric
    FROM forecast_fits AS fits
    INNER JOIN _shown_forecasts AS shown USING (forecast)
    WHERE shown.items_digest = '' AND fits.items_digest != ''
),

measured AS (
    SELECT
        shown.forecast,
        whole.task,
        whole.items_digest,
        whole.prompting,
        whole.metric,
        whole.model,
        whole.cell_id,
        whole.score AS value,
        whole.attempted AS asked
    FROM whole
    INNER JOIN _shown_forecasts AS shown USING (task, items_digest, prompting, metric)
    UNION ALL
    -- Models with all tasks whole.
    SELECT
        tasks_of_all.forecast,
        'all' AS task,
        '' AS items_digest,
        '' AS prompting,
        '' AS metric,
        whole.model,
        NULL AS cell_id,
        _mean(whole.score, 1e12) AS value,
        sum(whole.attempted)::INTEGER AS asked
    FROM whole
    INNER JOIN tasks_of_all USING (task, items_digest, prompting, metric)
    GROUP BY
        tasks_of_all.forecast,
        whole.model,
        whole.revision,
        whole.dtype,
        whole.quantization,
        whole.max_length,
        whole.overrides,
        whole.imported_from,
        whole.effort
    HAVING count(*) = (SELECT count(*) FROM tasks_of_all)
),

foretold AS (
    SELECT
        forecasts.forecast,
        forecasts.task,
        forecasts.items_digest,
        forecasts.prompting,
        forecasts.metric,
        forecasts.model,
        forecasts.cell_id,
        forecasts.value,
        forecasts.low,
        forecasts.high,
        false AS is_measured,
        forecasts.asked,
        forecasts.items,
        forecasts.method
    FROM forecasts
    INNER JOIN _shown_forecasts AS shown USING (forecast, task, items_digest, prompting, metric)
    -- What a stale forecast foretells may be measured by now.
    ANTI JOIN measured
        ON forecasts.task = measured.task
        AND forecasts.items_digest = measured.items_digest
        AND forecasts.prompting = measured.prompting
        AND forecasts.metric = measured.metric
        AND (
            forecasts.cell_id = measured.cell_id
            -- A model that had no cell then, or a mean over all tasks.
            OR (shown.stale IS NOT NULL AND forecasts.cell_id IS NULL AND forecasts.model = measured.model)
        )
    WHERE forecasts.item IS NULL
),

every AS MATERIALIZED (
    SELECT
        both_kinds.*,
        row_number() OVER () AS number,
        coalesce(directions.higher_is_better, true) AS higher_is_better,
        CASE WHEN coalesce(directions.higher_is_better, true) THEN low ELSE -high END AS worst,
        CASE WHEN coalesce(directions.higher_is_better, true) THEN high ELSE -low END AS best
    FROM (
        SELECT
            * EXCLUDE (asked),
            value AS low,
            value AS high,
            true AS is_measured,
            asked,
            asked AS items,
            NULL::VARCHAR AS method
        FROM measured
        UNION ALL
        FROM foretold
    ) AS both_kinds
    LEFT JOIN (
        SELECT task, metric, bool_and(higher_is_better) AS higher_is_better
        FROM cells
        GROUP BY task, metric
    ) AS directions USING (task, metric)
),

-- Both ends of each band in order, the better first: two comparisons of each model with all others took 60 s at 8,500
-- models and 13 tasks, this 3 s.
ends AS (
    SELECT
        number,
        is_worst,
        count(*) FILTER (is_worst) OVER before AS wholly_better,
        count(*) FILTER (NOT is_worst) OVER before AS not_wholly_worse
    FROM (
        SELECT number, forecast, task, items_digest, prompting, metric, best AS place, false AS is_worst FROM every
        UNION ALL
        SELECT number, forecast, task, items_digest, prompting, metric, worst AS place, true AS is_worst FROM every
    )
    WINDOW before AS (
        PARTITION BY forecast, task, items_digest, prompting, metric
        ORDER BY place DESC, is_worst
        ROWS UNBOUNDED PRECEDING
    )
),

placed AS (
    SELECT
        every.*,
        1 + at_best.wholly_better AS rank,
        at_worst.not_wholly_worse AS rank_worst
    FROM every
    INNER JOIN (FROM ends WHERE NOT is_worst) AS at_best USING (number)
    INNER JOIN (FROM ends WHERE is_worst) AS at_worst USING (number)
)

SELECT
    placed.task,
    placed.rank,
    placed.rank AS rank_best,
    placed.rank_worst,
    placed.model,
    placed.metric,
    placed.value,
    placed.low,
    placed.high,
    shown.level,
    placed.is_measured,
    placed.asked,
    placed.items,
    placed.method,
    shown.verdict,
    shown.coverage,
    shown.stale,
    placed.higher_is_better,
    placed.prompting,
    placed.items_digest,
    placed.cell_id,
    placed.forecast
FROM placed
INNER JOIN _shown_forecasts AS shown USING (forecast, task, items_digest, prompting, metric);

-- forecast_leaderboard: one row per model and task of the shown forecasts (forecast_fits), and per model for the mean over
-- all tasks of a forecast (task 'all'). A whole cell is measured: its band is its score. Any other is foretold: value is
-- the expected score over all items of the task, within low and high for `level` of the models.
-- rank: 1 + the models above every band that this model's band is linked to by overlaps: models whose bands overlap share a
-- rank, whatever their values. rank_best, rank_worst: 1 + the models whose whole band is better, and the place at the end
-- if all that overlap were better. Without a forecast of the task there is no row: the view leaderboard has what is measured.
CREATE VIEW forecast_leaderboard AS
WITH lengths AS (
    SELECT task, items_digest, prompting, metric, max(planned_items) AS items
    FROM cells
    GROUP BY task, items_digest, prompting, metric
),

measured AS (
    SELECT
        shown.forecast,
        leaderboard.task,
        leaderboard.items_digest,
        leaderboard.prompting,
        leaderboard.metric,
        leaderboard.model,
        leaderboard.cell_id,
        leaderboard.score AS value,
        leaderboard.score AS low,
        leaderboard.score AS high,
        true AS is_measured,
        leaderboard.attempted::INTEGER AS asked,
        leaderboard.attempted::INTEGER AS items,
        NULL::VARCHAR AS method
    FROM leaderboard
    INNER JOIN _shown_forecasts AS shown USING (task, items_digest, prompting, metric)
    INNER JOIN lengths USING (task, items_digest, prompting, metric)
    WHERE NOT leaderboard.is_group AND leaderboard.scored = lengths.items
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
        -- The mean over all tasks of a model with all of them whole.
        forecasts.asked = forecasts.items AS is_measured,
        forecasts.asked,
        forecasts.items,
        forecasts.method
    FROM forecasts
    INNER JOIN _shown_forecasts AS shown USING (forecast, task, items_digest, prompting, metric)
    ANTI JOIN measured ON forecasts.task = measured.task AND forecasts.cell_id = measured.cell_id
    WHERE forecasts.item IS NULL
),

every AS (
    SELECT
        both_kinds.*,
        coalesce(directions.higher_is_better, true) AS higher_is_better,
        CASE WHEN coalesce(directions.higher_is_better, true) THEN low ELSE -high END AS worst,
        CASE WHEN coalesce(directions.higher_is_better, true) THEN high ELSE -low END AS best
    FROM (FROM measured UNION ALL FROM foretold) AS both_kinds
    LEFT JOIN (
        SELECT task, metric, bool_and(higher_is_better) AS higher_is_better
        FROM cells
        GROUP BY task, metric
    ) AS directions USING (task, metric)
),

-- From the best end downwards: a model whose best end is below the worst ends of all before it begins a new rank.
linked AS (
    SELECT
        *,
        coalesce(
            best < min(worst) OVER (
                PARTITION BY forecast, task, items_digest, prompting, metric
                ORDER BY best DESC, worst DESC, model, cell_id
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ),
            true
        ) AS begins,
        row_number() OVER (
            PARTITION BY forecast, task, items_digest, prompting, metric
            ORDER BY best DESC, worst DESC, model, cell_id
        ) AS place
    FROM every
)

SELECT
    linked.task,
    max(CASE WHEN begins THEN place END) OVER (
        PARTITION BY linked.forecast, linked.task, linked.items_digest, linked.prompting, linked.metric
        ORDER BY place
    ) AS rank,
    (
        SELECT 1 + count(*)
        FROM every
        WHERE
            every.forecast = linked.forecast
            AND every.task = linked.task
            AND every.items_digest = linked.items_digest
            AND every.prompting = linked.prompting
            AND every.metric = linked.metric
            AND every.worst > linked.best
    ) AS rank_best,
    (
        SELECT count(*)
        FROM every
        WHERE
            every.forecast = linked.forecast
            AND every.task = linked.task
            AND every.items_digest = linked.items_digest
            AND every.prompting = linked.prompting
            AND every.metric = linked.metric
            AND every.best >= linked.worst
    ) AS rank_worst,
    linked.model,
    linked.metric,
    linked.value,
    linked.low,
    linked.high,
    shown.level,
    linked.is_measured,
    linked.asked,
    linked.items,
    linked.method,
    shown.verdict,
    shown.coverage,
    shown.stale,
    linked.higher_is_better,
    linked.prompting,
    linked.items_digest,
    linked.cell_id,
    linked.forecast
FROM linked
INNER JOIN _shown_forecasts AS shown USING (forecast, task, items_digest, prompting, metric);

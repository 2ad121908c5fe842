-- _shown_forecasts: one row per task, item table, prompting and metric with a forecast: the one that the views show.
CREATE VIEW _shown_forecasts AS
SELECT
    forecast,
    task,
    items_digest,
    prompting,
    metric,
    any_value(stale) AS stale,
    any_value(verdict) AS verdict,
    any_value(level) AS level,
    min(coverage) AS coverage
FROM forecast_fits
WHERE is_shown
GROUP BY forecast, task, items_digest, prompting, metric;

-- forecast_matrix: one row per model and item of the tasks with a shown forecast (forecast_fits): the measured score, or
-- the probability of a right answer where the item was not asked. Ask for it by name: no other view and no export mixes
-- the two.
CREATE VIEW forecast_matrix AS
SELECT
    matrix.task,
    matrix.items_digest,
    matrix.item,
    matrix.model,
    matrix.prompting,
    matrix.metric,
    matrix.score AS probability,
    true AS is_measured,
    matrix.cell_id,
    shown.stale,
    shown.forecast
FROM matrix
INNER JOIN _shown_forecasts AS shown USING (task, items_digest, prompting, metric)
WHERE matrix.score IS NOT NULL
UNION ALL
SELECT
    forecasts.task,
    forecasts.items_digest,
    forecasts.item,
    forecasts.model,
    forecasts.prompting,
    forecasts.metric,
    forecasts.value AS probability,
    false AS is_measured,
    forecasts.cell_id,
    shown.stale,
    shown.forecast
FROM forecasts
INNER JOIN _shown_forecasts AS shown USING (forecast, task, items_digest, prompting, metric)
ANTI JOIN (FROM matrix WHERE score IS NOT NULL) AS measured
    ON forecasts.cell_id = measured.cell_id AND forecasts.item = measured.item
WHERE forecasts.item IS NOT NULL;

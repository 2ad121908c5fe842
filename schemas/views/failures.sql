-- failures: one row per failure. level 'cell': a model, task, cell or shard was not collected; each time is a row.
-- level 'item': an item of the matrix has no verdict by our fault; these rows add up to failed in coverage. What a
-- model did (empty, overlong, …) is the item's outcome and no failure. file: the object of the lake that could not be
-- read; null for other failures.
CREATE VIEW failures AS
SELECT
    'cell' AS level,
    kind,
    model,
    task,
    cell_id,
    first_item,
    last_item,
    run_id,
    failed_at,
    message,
    file
FROM {failures} AS written
-- Those from before what was forgotten of the cell, of the run, or of all that the lake had of the model.
ANTI JOIN (SELECT cell_id, retracted_at FROM _standing WHERE cell_id IS NOT NULL AND first_item IS NULL) AS of_cells
    ON written.cell_id = of_cells.cell_id
    AND written.failed_at <= of_cells.retracted_at
ANTI JOIN (SELECT run_id FROM _standing WHERE run_id IS NOT NULL) AS of_runs
    ON written.run_id = of_runs.run_id
ANTI JOIN (SELECT model, retracted_at FROM _standing WHERE cell_id IS NULL AND run_id IS NULL) AS of_models
    ON written.model = of_models.model
    AND written.failed_at <= of_models.retracted_at
UNION ALL
SELECT
    'item' AS level,
    failure AS kind,
    model,
    task,
    cell_id,
    item AS first_item,
    item AS last_item,
    NULL AS run_id,
    NULL AS failed_at,
    NULL AS message,
    NULL AS file
FROM matrix
WHERE outcome IN ('engine', 'judge', 'store');

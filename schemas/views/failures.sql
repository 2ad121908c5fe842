-- failures: one row per failure. level 'cell': a model, task, cell or shard that could not be collected, as often as it
-- happened; level 'item': an item of the matrix without a verdict, so that these rows add up to coverage's
-- unanswered + failed. file: the object of the lake that could not be read, where that is the failure.
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
FROM {failures}
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
WHERE failure IS NOT NULL;

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
WHERE outcome IN ('engine', 'judge', 'store');

-- matrix: one row per collected item of a cell: the primary filter's verdict over all repeats (repeat 0).
-- An item that was never collected has no row; one that was asked but has no verdict has score null and a failure kind.
-- One column of a wide matrix is one cell_id: prompting, dtype, quantization and items_digest tell apart what must not
-- be mixed under one model name.
CREATE VIEW matrix AS
SELECT
    cells.task,
    cells.items_digest,
    records.item,
    records.item_hash,
    cells.model,
    cells.prompting,
    cells.dtype,
    cells.quantization,
    cells.metric,
    records.cell_id,
    CASE WHEN records.failure IS NULL THEN records.score END AS score,
    CASE WHEN records.failure IS NULL THEN records.correct END AS correct,
    CASE WHEN records.failure IS NULL AND records.score IS NULL THEN 'not_judged' ELSE records.failure END AS failure,
    records.prompt_tokens,
    records.completion_tokens,
    records.cached_tokens,
    records.engine_tokens,
    records.latency_s,
    records.generation
FROM records
INNER JOIN cells
    ON records.cell_id = cells.cell_id
    AND records.filter = cells.filter
    -- Implied by the cell; said so that a query for one task skips the other tasks' files.
    AND records.task = cells.task
WHERE records.repeat = 0;

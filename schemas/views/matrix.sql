-- matrix: one row per collected item of a cell: the primary filter's verdict over all repeats (repeat 0). An item that
-- was never collected has no row. An item without a verdict has a null score and a failure kind. One column of a wide
-- matrix is one cell_id: cells that differ in prompting, dtype, quantization or items_digest must not be mixed under
-- one model name.
CREATE VIEW matrix AS
WITH verdicts AS (
    SELECT
        _open_rows.task,
        cells.items_digest,
        item,
        item_hash,
        _open_rows.model,
        cells.prompting,
        cells.dtype,
        cells.quantization,
        cells.metric,
        cells.imported_from,
        _open_rows.cell_id,
        score,
        correct,
        failure,
        prompt_tokens,
        completion_tokens,
        cached_tokens,
        engine_tokens,
        latency_s,
        stated_usd,
        _open_rows.generation
    FROM _open_rows
    INNER JOIN cells
        ON _open_rows.cell_id = cells.cell_id
        AND _open_rows.filter = cells.filter
    WHERE repeat = 0
    UNION ALL
    SELECT
        task,
        items_digest,
        item,
        item_hash,
        model,
        prompting,
        dtype,
        quantization,
        metric,
        imported_from,
        cell_id,
        score,
        correct,
        failure,
        prompt_tokens,
        completion_tokens,
        cached_tokens,
        engine_tokens,
        latency_s,
        stated_usd,
        generation
    FROM _folded_verdicts
)
SELECT * REPLACE (CASE WHEN failure IS NULL AND score IS NULL THEN 'not_judged' ELSE failure END AS failure)
FROM verdicts;

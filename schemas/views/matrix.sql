-- matrix: one row per collected item of a cell: the primary filter's verdict over all repeats (repeat 0). An item that
-- was never collected has no row. outcome: ok, or why the model gave no whole answer (empty, truncated, overlong, nan,
-- filtered, refused: these have a score, the task's verdict or 0), or why we have none (engine, judge, store: score is
-- null). failure names the kind: set_level where items have no score, because the metric has a value over a whole set
-- alone (view aggregates). Rows of schema 6 get the same rules here (schemas.verdicts). One column of a wide matrix is
-- one cell_id: cells that differ in prompting, dtype, quantization or items_digest must not be mixed under one model
-- name.
-- With a chosen judge score, correct, failure, outcome and metric are by its verdicts (views judges, verdicts): an answer
-- without one is not judged.
CREATE VIEW matrix AS
WITH stored AS (
    SELECT
        _open_verdicts.task,
        cells.items_digest,
        item,
        item_hash,
        _open_verdicts.model,
        cells.prompting,
        cells.dtype,
        cells.quantization,
        cells.metric,
        cells.imported_from,
        _open_verdicts.cell_id,
        score,
        correct,
        failure,
        outcome,
        finish_reason,
        prompt_tokens,
        completion_tokens,
        reasoning_tokens,
        cached_tokens,
        cache_write_tokens,
        engine_tokens,
        latency_s,
        stated_usd,
        _open_verdicts.generation,
        {open_metrics} AS metrics,
        cells.is_set_level,
        cells.older_set_level,
        cells.higher_is_better,
        cells.correct_threshold
    FROM _open_verdicts
    INNER JOIN cells
        ON _open_verdicts.cell_id = cells.cell_id
        AND _open_verdicts.filter = cells.filter
    WHERE repeat = 0
    UNION ALL
    SELECT
        _folded_verdicts.task,
        _folded_verdicts.items_digest,
        _folded_verdicts.item,
        _folded_verdicts.item_hash,
        _folded_verdicts.model,
        _folded_verdicts.prompting,
        _folded_verdicts.dtype,
        _folded_verdicts.quantization,
        _folded_verdicts.metric,
        _folded_verdicts.imported_from,
        _folded_verdicts.cell_id,
        _folded_verdicts.score,
        _folded_verdicts.correct,
        _folded_verdicts.failure,
        _folded_verdicts.outcome,
        _folded_verdicts.finish_reason,
        _folded_verdicts.prompt_tokens,
        _folded_verdicts.completion_tokens,
        _folded_verdicts.reasoning_tokens,
        _folded_verdicts.cached_tokens,
        _folded_verdicts.cache_write_tokens,
        _folded_verdicts.engine_tokens,
        _folded_verdicts.latency_s,
        _folded_verdicts.stated_usd,
        _folded_verdicts.generation,
        {folded_metrics} AS metrics,
        {folded_is_set_level} AS is_set_level,
        {folded_older_set_level} AS older_set_level,
        {folded_higher_is_better} AS higher_is_better,
        {folded_correct_threshold} AS correct_threshold
    FROM _folded_verdicts{folded_cells}
),

valued AS (
    SELECT
        * EXCLUDE (outcome),
        outcome AS stored_outcome,
        CASE
            WHEN outcome IS NOT NULL THEN score
            WHEN older_set_level OR failure = 'empty_answer' THEN _verdict(metrics, metric)
            ELSE score
        END AS verdict,
        _outcome(outcome, failure, finish_reason, coalesce(is_set_level, false) OR verdict IS NOT NULL) AS outcome
    FROM stored
),

ruled AS (
    SELECT
        * EXCLUDE (score),
        _score(stored_outcome, score, outcome, verdict, is_set_level, higher_is_better) AS score
    FROM valued
)

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
    CASE
        WHEN stored_outcome IS NOT NULL THEN correct
        WHEN score BETWEEN 0 AND 1 THEN score >= correct_threshold
    END AS correct,
    CASE
        WHEN failure IS NULL AND score IS NULL
            THEN CASE WHEN outcome IN ('engine', 'judge', 'store') THEN 'not_judged' ELSE 'set_level' END
        ELSE failure
    END AS failure,
    outcome,
    prompt_tokens,
    completion_tokens,
    reasoning_tokens,
    cached_tokens,
    cache_write_tokens,
    engine_tokens,
    latency_s,
    stated_usd,
    generation
FROM {shown};

-- records: one row per item, filter and repeat of a cell. Never touches the columns that hold the answers.
-- A score that is no finite number is unknown, like a null.
CREATE VIEW records AS
SELECT
    cell_id,
    model,
    task,
    item,
    item_hash,
    filter,
    repeat,
    CASE WHEN isfinite(score) THEN score END AS score,
    CASE WHEN isfinite(score) THEN correct END AS correct,
    metrics,
    failure,
    prompt_tokens,
    completion_tokens,
    cached_tokens,
    engine_tokens,
    finish_reason,
    ttft_s,
    latency_s,
    generation
FROM _rows;

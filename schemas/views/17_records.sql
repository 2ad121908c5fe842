-- records: one row per item, filter and repeat of a cell. Never touches the columns that hold the answers.
CREATE VIEW records AS
SELECT
    cell_id,
    model,
    task,
    item,
    item_hash,
    filter,
    repeat,
    score,
    correct,
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
FROM _open_rows
UNION ALL
SELECT
    cell_id,
    model,
    task,
    item,
    item_hash,
    filter,
    repeat,
    score,
    correct,
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
FROM _folded_records;

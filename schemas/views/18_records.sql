-- records: one row per item, filter and repeat of a cell. Never touches the columns that hold the answers.
CREATE VIEW records AS
WITH rows_by_name AS (
    SELECT * EXCLUDE (responses, loglikelihoods, is_greedy, filtered)
    FROM _open_rows
    UNION ALL BY NAME
    SELECT * EXCLUDE (items_digest, prompting, dtype, quantization, metric, imported_from, is_primary, place)
    FROM _folded_records
)
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
    stated_usd,
    source_file,
    source_row,
    generation
FROM rows_by_name;

-- cells: one row per cell, as the newest run that planned it describes it.
-- planned_items and generation are the most that any run asked for: a later run with a smaller limit takes nothing away.
CREATE VIEW cells AS
SELECT
    cell_id,
    model,
    source,
    revision,
    dtype,
    quantization,
    max_length,
    overrides,
    task,
    task_version,
    task_digest,
    items_digest,
    output_type,
    num_fewshot,
    fewshot_seed,
    chat_template,
    fewshot_as_multiturn,
    system_prompt,
    decoding,
    prompting,
    metric,
    filter,
    higher_is_better,
    correct_threshold,
    items,
    max(planned_items) OVER (PARTITION BY cell_id) AS planned_items,
    max(generation) OVER (PARTITION BY cell_id) AS generation,
    run_id,
    started_at,
    engine,
    versions
FROM _run_cells
QUALIFY row_number() OVER (PARTITION BY cell_id ORDER BY started_at DESC, run_id DESC, model) = 1;

-- tasks: one row per task, items and prompting, as the newest run describes it: models can be compared within one row.
-- cells: number of planned cells (a model at a revision, dtype and quantization).
CREATE VIEW tasks AS
SELECT
    task,
    items_digest,
    prompting,
    task_version,
    task_digest,
    output_type,
    metric,
    filter,
    higher_is_better,
    correct_threshold,
    items,
    num_fewshot,
    fewshot_seed,
    chat_template,
    fewshot_as_multiturn,
    system_prompt,
    decoding,
    count(*) OVER (PARTITION BY task, items_digest, prompting) AS cells
FROM cells
QUALIFY row_number() OVER (
    PARTITION BY task, items_digest, prompting ORDER BY started_at DESC, run_id DESC, cell_id
) = 1;

-- _drawn_cells: one row per cell that asked a part of another cell's items several times (`repeats` of a run's config):
-- member_cell_id is that other cell, with one answer for each item, and the same settings but for the repeats. Empty in
-- most lakes.
CREATE VIEW _drawn_cells AS
WITH repeated AS MATERIALIZED (
    SELECT *
    FROM cells
    WHERE imported_from IS NULL AND decoding LIKE '%"repeats"%'
),

alike AS (
    SELECT
        cell_id,
        started_at,
        (decoding ->> '$.repeats') IS NOT NULL AS is_repeated,
        (
            (model, endpoint, revision, dtype, quantization, max_length, overrides, generation_config),
            (chat_template_args, thinking, thinking_tokens, reasoning_effort),
            (task, task_version, task_digest, items_digest, output_type, metric, filter, overlong),
            (num_fewshot, fewshot_seed, chat_template, fewshot_as_multiturn, system_prompt),
            json_merge_patch(decoding, '{"repeats": null}')::VARCHAR
        ) AS settings
    FROM cells
    SEMI JOIN (SELECT DISTINCT model, task FROM repeated) AS same USING (model, task)
    WHERE imported_from IS NULL
)

SELECT
    several.cell_id,
    several.started_at,
    once.cell_id AS member_cell_id
FROM alike AS several
INNER JOIN alike AS once ON several.settings = once.settings
WHERE several.is_repeated AND NOT once.is_repeated;

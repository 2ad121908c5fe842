-- _cell_rows: one row per cell, as in the view cells.
CREATE VIEW _cell_rows AS
WITH meant AS (  -- what runs meant to ask of a cell: its first items, and lists
    SELECT
        cell_id,
        coalesce(max(planned_items) FILTER (WHERE sampled_items IS NULL), 0) AS upto,
        list(DISTINCT item_set ORDER BY item_set) FILTER (WHERE item_set IS NOT NULL) AS lists
    FROM {run_cells}
    GROUP BY cell_id
),

together AS (  -- counted once for all cells that were meant to be asked the same
    SELECT upto, lists, upto + count(DISTINCT item) FILTER (WHERE item >= upto) AS meant_items
    FROM (SELECT DISTINCT upto, lists, unnest(lists) AS item_set FROM meant WHERE lists IS NOT NULL)
    INNER JOIN _item_sets USING (item_set)
    GROUP BY upto, lists
)
SELECT
    cell_id,
    imported_from,
    model,
    source,
    revision,
    dtype,
    quantization,
    max_length,
    context_length,
    overlong,
    overrides,
    generation_config,
    effort,
    chat_template_args,
    thinking,
    thinking_tokens,
    reasoning_effort,
    sandbox,
    endpoint,
    task,
    task_version,
    task_digest,
    items_digest,
    output_type,
    num_fewshot,
    fewshot_seed,
    chat_template,
    chat_date,
    fewshot_as_multiturn,
    system_prompt,
    decoding,
    prompting,
    metric,
    aggregation,
    filter,
    higher_is_better,
    correct_threshold,
    _is_set_level(aggregation, metric, output_type, imported_from IS NOT NULL) AS is_set_level,
    bool_or(aggregation IS NULL AND _is_set_level(NULL, metric, output_type, imported_from IS NOT NULL)) OVER (
        PARTITION BY cell_id
    ) AS older_set_level,
    -- What an import states of its scores: [least, most], null: no limit.
    imported_from IS NOT NULL AND coalesce(starts_with(config, '{"range": ['), false) AS has_score_range,
    CASE WHEN has_score_range THEN TRY_CAST(regexp_extract(config, '\[([^,\]]*), ([^,\]]*)\]', 1) AS DOUBLE) END AS score_low,
    CASE WHEN has_score_range THEN TRY_CAST(regexp_extract(config, '\[([^,\]]*), ([^,\]]*)\]', 2) AS DOUBLE) END AS score_high,
    items,
    max(planned_items) OVER (PARTITION BY cell_id) AS planned_items,
    -- What runs meant to ask together; null where one meant all of planned_items.
    nullif(
        greatest(
            max(planned_items) FILTER (WHERE sampled_items IS NULL) OVER (PARTITION BY cell_id),
            max(sampled_items) OVER (PARTITION BY cell_id),
            meant_items
        ),
        max(planned_items) OVER (PARTITION BY cell_id)
    ) AS sampled_items,
    max(generation) OVER (PARTITION BY cell_id) AS generation,
    run_id,
    started_at,
    engine,
    versions
FROM {run_cells}
LEFT JOIN (SELECT cell_id, meant_items FROM meant INNER JOIN together USING (upto, lists)) USING (cell_id)
QUALIFY row_number() OVER (PARTITION BY cell_id ORDER BY started_at DESC, run_id DESC, model) = 1;

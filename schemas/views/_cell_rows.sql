-- _cell_rows: one row per cell, as in the view cells.
CREATE VIEW _cell_rows AS
WITH of_cell AS MATERIALIZED (
    SELECT
        cell_id,
        count(*) AS times,
        count(item_set) AS times_listed,
        max(planned_items) AS most_items,
        max(planned_items) FILTER (WHERE sampled_items IS NULL) AS whole_items,
        max(sampled_items) AS most_sampled,
        max(generation) AS newest_generation,
        bool_or(aggregation IS NULL AND _is_set_level(NULL, metric, output_type, imported_from IS NOT NULL))
            AS older_set_level
    FROM {run_cells}
    GROUP BY cell_id
),

-- Of a cell that several runs planned the newest row, which is chosen over few columns, because rows are wide: sorting
-- those of 102,000 cells took a second. copies: rows that are equal in all of these columns.
newest AS MATERIALIZED (
    SELECT
        cell_id,
        started_at,
        run_id,
        model,
        count(*) OVER (PARTITION BY cell_id, started_at, run_id, model) AS copies
    FROM {run_cells}
    SEMI JOIN (FROM of_cell WHERE times > 1) AS several USING (cell_id)
    QUALIFY row_number() OVER (PARTITION BY cell_id ORDER BY started_at DESC, run_id DESC, model) = 1
),

described AS (
    SELECT planned.*, of_cell.* EXCLUDE (cell_id)
    FROM {run_cells} AS planned
    INNER JOIN of_cell ON planned.cell_id = of_cell.cell_id
    LEFT JOIN newest
        ON planned.cell_id = newest.cell_id
        AND planned.started_at = newest.started_at
        AND planned.run_id = newest.run_id
        AND planned.model = newest.model
    WHERE times = 1 OR copies = 1
    UNION ALL
    SELECT planned.*, of_cell.* EXCLUDE (cell_id)
    FROM {run_cells} AS planned
    SEMI JOIN (FROM newest WHERE copies > 1) AS copied USING (cell_id, started_at, run_id, model)
    INNER JOIN of_cell ON planned.cell_id = of_cell.cell_id
    QUALIFY row_number() OVER (PARTITION BY planned.cell_id) = 1
),

meant AS (  -- what runs meant to ask of a cell of which some asked a list: its first items, and lists
    SELECT
        cell_id,
        coalesce(max(planned_items) FILTER (WHERE sampled_items IS NULL), 0) AS upto,
        list(DISTINCT item_set ORDER BY item_set) FILTER (WHERE item_set IS NOT NULL) AS lists
    FROM {run_cells}
    SEMI JOIN (FROM of_cell WHERE times_listed > 0) AS listed USING (cell_id)
    GROUP BY cell_id
),

together AS (  -- counted once for all cells that were meant to be asked the same
    SELECT upto, lists, upto + count(DISTINCT item) FILTER (WHERE item >= upto) AS meant_items
    FROM (SELECT DISTINCT upto, lists, unnest(lists) AS item_set FROM meant)
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
    older_set_level,
    -- What an import states of its scores: [least, most], null: no limit.
    imported_from IS NOT NULL AND coalesce(starts_with(config, '{"range": ['), false) AS has_score_range,
    CASE WHEN has_score_range THEN TRY_CAST(regexp_extract(config, '\[([^,\]]*), ([^,\]]*)\]', 1) AS DOUBLE) END AS score_low,
    CASE WHEN has_score_range THEN TRY_CAST(regexp_extract(config, '\[([^,\]]*), ([^,\]]*)\]', 2) AS DOUBLE) END AS score_high,
    items,
    most_items AS planned_items,
    -- What runs meant to ask together; null where one meant all of planned_items.
    nullif(greatest(whole_items, most_sampled, meant_items), most_items) AS sampled_items,
    newest_generation AS generation,
    run_id,
    started_at,
    engine,
    versions
FROM described
LEFT JOIN (SELECT cell_id, meant_items FROM meant INNER JOIN together USING (upto, lists)) USING (cell_id);

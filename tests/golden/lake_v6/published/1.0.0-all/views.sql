-- The views over this snapshot. Read from its own folder, or from anywhere after
-- SET VARIABLE snapshot = 's3://bucket/version';

-- _folded: one row per shard that the newest compaction holds: where its rows are now. Empty before the first one.
CREATE VIEW _folded AS
SELECT cell_id, generation, first_item, last_item, part, place
FROM read_parquet([coalesce(getvariable('snapshot'), '.') || '/compact/000001/folded.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/folded/schema.parquet'], hive_partitioning = false)
WHERE part NOT IN ('');

-- _shard_files: one row per committed shard file, from its name alone (a listing, no file is opened). Files that are no
-- shards (schema.parquet, temporary files) are left out. is_folded: the newest compaction holds its rows.
CREATE VIEW _shard_files AS
WITH listed AS (
    SELECT
        file,
        regexp_extract(
            file,
            '(?:^|/)([0-9a-fi][0-9a-f]{15})-g([0-9]{1,6})-([0-9]{7})-([0-9]{7})\.parquet$',
            ['cell_id', 'generation', 'first_item', 'last_item']
        ) AS name
    FROM (SELECT '' AS file WHERE false)
),

shard_files AS (
    SELECT
        file,
        name.cell_id AS cell_id,
        name.generation::INTEGER AS generation,
        name.first_item::INTEGER AS first_item,
        name.last_item::INTEGER AS last_item
    FROM listed
    WHERE name.cell_id <> ''
)

SELECT shard_files.*, _folded.part IS NOT NULL AS is_folded
FROM shard_files
LEFT JOIN _folded USING (cell_id, generation, first_item, last_item);

-- _superseded: one row per range of items that a shard file holds but does not own. Empty in most lakes.
-- What a compaction holds comes before any file. Within a generation the file that sorts first by name owns an overlap,
-- so a file owns what lies beyond the last item of all files before it. Between generations the higher one owns
-- whatever its files cover.
CREATE VIEW _superseded AS
WITH files AS MATERIALIZED (
    SELECT * FROM _shard_files WHERE NOT is_folded
),

ordered AS (
    SELECT
        file,
        first_item,
        max(last_item) OVER (
            PARTITION BY cell_id, generation
            ORDER BY first_item, last_item
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS owned_before
    FROM files
)
SELECT file, first_item, owned_before AS last_item
FROM ordered
WHERE owned_before >= first_item
UNION ALL
SELECT older.file, newer.first_item, newer.last_item
FROM files AS older
INNER JOIN files AS newer
    ON older.cell_id = newer.cell_id
    AND older.generation < newer.generation
    AND older.first_item <= newer.last_item
    AND older.last_item >= newer.first_item
UNION ALL
SELECT files.file, _folded.first_item, _folded.last_item
FROM files
INNER JOIN _folded
    ON files.cell_id = _folded.cell_id
    AND files.generation <= _folded.generation
    AND files.first_item <= _folded.last_item
    AND files.last_item >= _folded.first_item
UNION ALL
SELECT file, first_item, last_item
FROM _shard_files
WHERE is_folded;

-- _outdated: one row per range of a cell's items that a compaction holds and a shard file of a higher generation has
-- collected again since. Empty in most lakes.
CREATE VIEW _outdated AS
SELECT DISTINCT
    _folded.part,
    _folded.cell_id,
    newer.generation,
    newer.first_item,
    newer.last_item
FROM _folded
INNER JOIN _shard_files AS newer
    ON _folded.cell_id = newer.cell_id
    AND _folded.generation < newer.generation
    AND _folded.first_item <= newer.last_item
    AND _folded.last_item >= newer.first_item
WHERE NOT newer.is_folded;

-- shards: one row per committed shard, with what its run wrote into the Parquet metadata. Opens every footer of those
-- that no compaction holds yet; in_compaction tells them apart.
-- Seconds are by the wall clock of the host; engine_seconds are those in which the engine worked. Null: not recorded.
CREATE VIEW shards AS
WITH open_facts AS (
    SELECT file_name AS file, decode(value)::JSON AS facts
    FROM parquet_kv_metadata([coalesce(getvariable('snapshot'), '.') || '/shards/schema/schema.parquet'])
    WHERE decode(key) = 'shard'
),

committed AS (
    SELECT cell_id, generation, first_item, last_item, facts, file, false AS in_compaction
    FROM _shard_files
    LEFT JOIN open_facts USING (file)
    WHERE NOT is_folded
    UNION ALL
    SELECT cell_id, generation, first_item, last_item, facts::JSON, coalesce(getvariable('snapshot'), '.') || '/' || file, true
    FROM read_parquet([coalesce(getvariable('snapshot'), '.') || '/compact/000001/folded.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/folded/schema.parquet'], hive_partitioning = false)
    WHERE part NOT IN ('')
)
SELECT
    cell_id,
    generation,
    first_item,
    last_item,
    json_extract_string(facts, '$.run_id') AS run_id,
    json_extract_string(facts, '$.host') AS host,
    json_extract_string(facts, '$.gpu') AS gpu,
    json_extract_string(facts, '$.engine') AS engine,
    TRY_CAST(json_extract_string(facts, '$.engine_seconds') AS DOUBLE) AS engine_seconds,
    TRY_CAST(json_extract_string(facts, '$.wall_seconds') AS DOUBLE) AS wall_seconds,
    TRY_CAST(json_extract_string(facts, '$.load_seconds') AS DOUBLE) AS load_seconds,
    TRY_CAST(json_extract_string(facts, '$.requests') AS BIGINT) AS requests,
    TRY_CAST(json_extract_string(facts, '$.engine_tokens') AS BIGINT) AS engine_tokens,
    TRY_CAST(json_extract_string(facts, '$.tokens_per_second') AS DOUBLE) AS tokens_per_second,
    TRY_CAST(json_extract_string(facts, '$.concurrency') AS DOUBLE) AS concurrency,
    facts,
    file,
    in_compaction
FROM committed;

-- models: one row per model at one revision, all that rows of models/ say of it put together.
-- Rows with listed_at are from a hub's catalog (catalog.py). skipped says why a config's catalog leaves one out: the kind of
-- its problem; 'unread' not read yet; 'older' another revision counts, the first with the files of the newest; 'adapter',
-- 'gguf' or 'no_weights' by its files; 'remote_code' or 'unknown_architecture' vLLM has no class for it; 'quantized' a
-- quantized copy; 'copy' another model has the same weights, the first made of those that would be collected.
CREATE VIEW models AS
WITH rows_of_models AS (
    SELECT
        *,
        -- rows that no catalog wrote come before those that one did
        coalesce(said_at, '-infinity'::TIMESTAMPTZ) AS time,
        -- who read the files counts before who was refused them, and before a listing
        (problem IS NULL)::INTEGER + (files_hash IS NOT NULL)::INTEGER AS weight
    FROM read_parquet([coalesce(getvariable('snapshot'), '.') || '/models/schema.parquet', coalesce(getvariable('snapshot'), '.') || '/models/all.parquet'], hive_partitioning = false)
),

said AS (
    SELECT
        model,
        source,
        revision,
        arg_max(architecture, weight) AS architecture,
        arg_max(parameters, weight) AS parameters,
        arg_max(weight_bytes, weight) AS weight_bytes,
        arg_max(max_length, weight) AS max_length,
        arg_max(tokenizer_hash, weight) AS tokenizer_hash,
        arg_max(chat_template_hash, weight) AS chat_template_hash,
        arg_max(dtype, weight) AS dtype,
        arg_max(quantization, weight) AS quantization,
        arg_max(weights, weight) AS weights,
        arg_max(weights_hash, weight) AS weights_hash,
        arg_max(tensors_hash, weight) AS tensors_hash,
        arg_max(files_hash, weight) AS files_hash,
        arg_max(config, weight) AS config,
        arg_max(generation_config, weight) AS generation_config,
        arg_max(licence, time) AS licence,
        arg_max(library, time) AS library,
        arg_max(pipeline_tag, time) AS pipeline_tag,
        arg_max(base_model, weight) AS base_model,
        arg_max(base_relation, weight) AS base_relation,
        arg_max(gated, time) AS gated,
        arg_max(downloads, time) AS downloads,
        max(created_at) AS created_at,
        max(listed_at) AS listed_at,
        min(listed_at) AS first_listed_at,
        arg_max(vllm, time) AS vllm,
        arg_max(vllm_version, time) AS vllm_version,
        max(said_at) AS said_at,
        -- it has no problem once it was read
        CASE WHEN NOT bool_or(files_hash IS NOT NULL AND problem IS NULL) THEN arg_max(problem, time) END AS problem,
        CASE
            WHEN NOT bool_or(files_hash IS NOT NULL AND problem IS NULL) THEN arg_max(problem_message, time)
        END AS problem_message
    FROM rows_of_models
    GROUP BY ALL
),

-- A commit to a README makes no other model: of the revisions with the newest one's files the first counts.
counted AS (
    SELECT
        *,
        listed_at IS NULL AS is_elsewhere,
        arg_max(files_hash, listed_at) OVER of_model AS newest_files,
        first_value(revision) OVER (
            PARTITION BY model, source, files_hash
            ORDER BY problem IS NULL DESC, first_listed_at, revision
        ) AS first_revision,
        arg_max(revision, listed_at) OVER of_model AS newest_revision
    FROM said
    WINDOW of_model AS (PARTITION BY model, source)
),

alone AS (
    SELECT
        * EXCLUDE (newest_files, first_revision, newest_revision, is_elsewhere, first_listed_at),
        CASE
            WHEN is_elsewhere THEN NULL
            WHEN problem IS NOT NULL THEN problem
            WHEN files_hash IS NULL THEN 'unread'
            WHEN files_hash <> newest_files OR revision <> first_revision THEN 'older'
            WHEN weights = 'adapter' THEN 'adapter'
            WHEN weights = 'gguf' THEN 'gguf'
            WHEN weights IS NULL THEN 'no_weights'
            WHEN NOT vllm AND contains(config, '"auto_map"') THEN 'remote_code'
            WHEN NOT vllm THEN 'unknown_architecture'
            WHEN quantization IS NOT NULL AND base_model <> model AND base_relation = 'quantized' THEN 'quantized'
        END AS reason,
        CASE WHEN files_hash <> newest_files THEN newest_revision ELSE first_revision END AS other_revision
    FROM counted
),

compared AS (
    SELECT
        *,
        CASE
            WHEN weights_hash IS NOT NULL
                THEN first_value(model) OVER (
                    PARTITION BY weights_hash
                    ORDER BY reason IS NULL DESC, reason IS DISTINCT FROM 'older' DESC, created_at NULLS LAST, model
                )
        END AS first_model
    FROM alone
),

told AS (
    SELECT
        * EXCLUDE (reason, first_model),
        CASE WHEN first_model <> model THEN first_model END AS same_weights_as,
        CASE WHEN reason IS NULL AND listed_at IS NOT NULL AND first_model <> model THEN 'copy' ELSE reason END AS skipped
    FROM compared
)

SELECT
    * EXCLUDE (other_revision),
    CASE skipped
        WHEN 'unread' THEN 'its files were not read yet: run catalog.py again'
        WHEN 'older' THEN 'revision ' || left(other_revision, 12) || ' counts in its place'
        WHEN 'adapter' THEN 'an adapter' || coalesce(' of ' || base_model, '') || ', which has no weights of its own'
        WHEN 'gguf' THEN 'GGUF files only' || coalesce(', made from ' || base_model, '')
        WHEN 'no_weights' THEN 'it has no weight files'
        WHEN 'remote_code' THEN 'vLLM ' || vllm_version || ' has no ' || coalesce(architecture, 'class for it')
            || ', the repo brings code of its own'
        WHEN 'unknown_architecture' THEN 'vLLM ' || vllm_version || ' has no ' || coalesce(architecture, 'class for it')
        WHEN 'quantized' THEN 'a copy of ' || base_model || ', quantized by ' || quantization
        WHEN 'copy' THEN 'the same weights as ' || same_weights_as
        ELSE problem_message
    END AS skipped_because
FROM told;

-- items: one row per document of a task, in the version of the task's data that items_digest names.
CREATE VIEW items AS
SELECT task, items_digest, item, item_hash, prompt, target, choices, subject, doc, content_hash, source_key
FROM read_parquet([coalesce(getvariable('snapshot'), '.') || '/items/schema/schema.parquet', coalesce(getvariable('snapshot'), '.') || '/items/task=old_choice/c00eb89791724b45.parquet', coalesce(getvariable('snapshot'), '.') || '/items/task=old_generate/c00eb89791724b45.parquet', coalesce(getvariable('snapshot'), '.') || '/items/task=old_repeats/c00eb89791724b45.parquet', coalesce(getvariable('snapshot'), '.') || '/items/task=old_rolling/c00eb89791724b45.parquet', coalesce(getvariable('snapshot'), '.') || '/items/task=riddles/842f305bae758c39-0000022.parquet', coalesce(getvariable('snapshot'), '.') || '/items/task=riddles/842f305bae758c39.parquet'], hive_partitioning = false);

-- _run_cells: one row per planned cell of one run, of the cells that are asked for: collected, imported or all.
CREATE VIEW _run_cells AS
SELECT *
FROM read_parquet([coalesce(getvariable('snapshot'), '.') || '/runs/schema.parquet', coalesce(getvariable('snapshot'), '.') || '/runs/all.parquet'], hive_partitioning = false)
WHERE true;

-- runs: one row per run, as it was planned and how it ended. planned_items: over all its cells. outcome: null while the run
-- is at work, and of one that was killed.
CREATE VIEW runs AS
WITH planned AS (
    SELECT
        run_id,
        min(started_at) AS started_at,
        count(DISTINCT cell_id) AS cells,
        count(DISTINCT model) AS models,
        count(DISTINCT task) AS tasks,
        sum(planned_items)::BIGINT AS planned_items,
        max(generation) AS generation,
        min(engine) AS engine,
        any_value(versions) AS versions,
        any_value(config) AS config
    FROM _run_cells
    GROUP BY run_id
),

ends AS (
    SELECT
        run_id,
        max(ended_at) AS ended_at,
        max_by(outcome, ended_at) AS outcome,
        max_by(message, ended_at) AS message
    FROM read_parquet([coalesce(getvariable('snapshot'), '.') || '/run_ends/schema.parquet', coalesce(getvariable('snapshot'), '.') || '/run_ends/all.parquet'], hive_partitioning = false)
    GROUP BY run_id
)

SELECT
    planned.*,
    ends.ended_at,
    ends.outcome,
    ends.message
FROM planned
LEFT JOIN ends USING (run_id);

-- _cell_facts: one row per cell, as in the view cells.
CREATE VIEW _cell_facts AS
SELECT
    cell_id,
    imported_from,
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

-- cells: one row per cell, as the newest run that planned it describes it.
-- planned_items and generation are the most that any run asked for: a later run with a smaller limit takes nothing away.
CREATE VIEW cells AS
SELECT *
FROM _cell_facts;

-- tasks: one row per task, items and prompting, as the newest run describes it: what models can be compared on.
-- cells: how many cells (a model at a revision, dtype and quantization) were planned on it.
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

-- _stored: one row per item, filter and repeat in the shard files, all columns, also of items that a file does not own.
CREATE VIEW _stored AS
SELECT
    * EXCLUDE (score, correct),
    -- A score that is no finite number is unknown, like a null, and so is that of an item without an answer.
    CASE WHEN isfinite(score) AND failure IS NULL THEN score END AS score,
    CASE WHEN isfinite(score) AND failure IS NULL THEN correct END AS correct,
    TRY_CAST(regexp_extract(filename, '-g([0-9]{1,6})-[0-9-]+\.parquet$', 1) AS INTEGER) AS generation
FROM read_parquet([coalesce(getvariable('snapshot'), '.') || '/shards/schema/schema.parquet'], hive_partitioning = false, filename = true)
-- Only what is named as a shard, and of it what its name promises: a copy that somebody left beside one, or gave another
-- name, must not double its rows. Decided per file.
WHERE
    regexp_matches(filename, '(?:^|/)[0-9a-fi][0-9a-f]{15}-g[0-9]{1,6}-[0-9]{7}-[0-9]{7}\.parquet$')
    AND cell_id = regexp_extract(filename, '([0-9a-fi][0-9a-f]{15})-g[0-9]{1,6}-[0-9-]+\.parquet$', 1)
    AND item
    BETWEEN TRY_CAST(regexp_extract(filename, '-([0-9]{7})-[0-9]{7}\.parquet$', 1) AS INTEGER)
    AND TRY_CAST(regexp_extract(filename, '-([0-9]{7})\.parquet$', 1) AS INTEGER);

-- _open_rows: one row per item, filter and repeat of a cell, all columns, from the one shard file that owns the item,
-- where no compaction holds it.
CREATE VIEW _open_rows AS
SELECT _stored.* EXCLUDE (filename)
FROM _stored
ANTI JOIN _superseded
    ON _stored.filename = _superseded.file
    AND _stored.item BETWEEN _superseded.first_item AND _superseded.last_item;

-- _folded_others: those rows of _folded_records whose parts also hold what the matrix does not show, or outdated rows.
CREATE VIEW _folded_others AS
SELECT *
FROM read_parquet([coalesce(getvariable('snapshot'), '.') || '/compact/000001/task=old_generate/records-00002.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/000001/task=old_generate/records-00003.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/000001/task=old_generate/records-00004.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/000001/task=old_repeats/records-00005.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/records/schema.parquet'], hive_partitioning = false)
UNION ALL
-- Parts of which some items are outdated: apart, so that all others are read without a join.
SELECT part.*
FROM read_parquet([coalesce(getvariable('snapshot'), '.') || '/compact/records/schema.parquet'], hive_partitioning = false) AS part
ANTI JOIN _outdated
    ON part.cell_id = _outdated.cell_id
    AND part.generation < _outdated.generation
    AND part.item BETWEEN _outdated.first_item AND _outdated.last_item;

-- _folded_records: one row per item, filter and repeat of a cell that the newest compaction holds and no shard file has
-- replaced since, with what the matrix wants to know of its cell.
CREATE VIEW _folded_records AS
SELECT *
FROM read_parquet([coalesce(getvariable('snapshot'), '.') || '/compact/000001/task=old_choice/records-00000.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/000001/task=old_choice/records-00001.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/000001/task=old_rolling/records-00006.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/000001/task=old_rolling/records-00007.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/000001/task=riddles/records-00008.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/records/schema.parquet'], hive_partitioning = false)
UNION ALL
SELECT *
FROM _folded_others;

-- _folded_verdicts: the rows of _folded_records that the matrix shows: primary filter, repeat 0. Parts that hold no others
-- are read without asking each row.
CREATE VIEW _folded_verdicts AS
SELECT *
FROM read_parquet([coalesce(getvariable('snapshot'), '.') || '/compact/000001/task=old_choice/records-00000.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/000001/task=old_choice/records-00001.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/000001/task=old_rolling/records-00006.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/000001/task=old_rolling/records-00007.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/000001/task=riddles/records-00008.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/records/schema.parquet'], hive_partitioning = false)
UNION ALL
SELECT *
FROM _folded_others
WHERE is_primary;

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

-- responses: one row per item, filter and repeat of a cell of which an answer is kept: what the model answered. Joins
-- records on the first columns.
CREATE VIEW responses AS
SELECT
    cell_id,
    model,
    task,
    item,
    item_hash,
    filter,
    repeat,
    responses,
    loglikelihoods,
    is_greedy,
    filtered,
    generation
FROM _open_rows
WHERE responses IS NOT NULL OR loglikelihoods IS NOT NULL OR is_greedy IS NOT NULL OR filtered IS NOT NULL
UNION ALL
SELECT part.*
FROM read_parquet([coalesce(getvariable('snapshot'), '.') || '/compact/000001/task=old_choice/responses-00000.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/000001/task=old_choice/responses-00001.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/000001/task=old_generate/responses-00002.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/000001/task=old_generate/responses-00003.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/000001/task=old_generate/responses-00004.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/000001/task=old_repeats/responses-00005.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/000001/task=old_rolling/responses-00006.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/000001/task=old_rolling/responses-00007.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/000001/task=riddles/responses-00008.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/responses/schema.parquet'], hive_partitioning = false) AS part
ANTI JOIN _outdated
    ON part.cell_id = _outdated.cell_id
    AND part.generation < _outdated.generation
    AND part.item BETWEEN _outdated.first_item AND _outdated.last_item;

-- _older: one row per item, filter and repeat that was replaced before the newest compaction.
CREATE VIEW _older AS
SELECT *
FROM read_parquet([coalesce(getvariable('snapshot'), '.') || '/compact/000001/task=old_choice/older-00001.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/000001/task=old_generate/older-00004.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/older/schema.parquet'], hive_partitioning = false);

-- superseded: one row per item, filter and repeat of a cell that was collected again: what an older generation, or a
-- shard that overlaps another, says of it. The views records, responses and matrix leave these rows out.
CREATE VIEW superseded AS
WITH older AS (
    SELECT _stored.* EXCLUDE (filename)
    FROM _stored
    SEMI JOIN _superseded
        ON _stored.filename = _superseded.file
        AND _stored.item BETWEEN _superseded.first_item AND _superseded.last_item
    -- A file that a compaction holds is not superseded by that.
    ANTI JOIN (SELECT file FROM _shard_files WHERE is_folded) AS folded_files
        ON _stored.filename = folded_files.file
    UNION ALL BY NAME
    SELECT
        part.* EXCLUDE (items_digest, prompting, dtype, quantization, metric, imported_from, is_primary, place),
        answers.responses,
        answers.loglikelihoods,
        answers.is_greedy,
        answers.filtered
    FROM read_parquet([coalesce(getvariable('snapshot'), '.') || '/compact/records/schema.parquet'], hive_partitioning = false) AS part
    SEMI JOIN _outdated
        ON part.cell_id = _outdated.cell_id
        AND part.generation < _outdated.generation
        AND part.item BETWEEN _outdated.first_item AND _outdated.last_item
    LEFT JOIN read_parquet([coalesce(getvariable('snapshot'), '.') || '/compact/000001/task=old_choice/responses-00000.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/000001/task=old_choice/responses-00001.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/000001/task=old_generate/responses-00002.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/000001/task=old_generate/responses-00003.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/000001/task=old_generate/responses-00004.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/000001/task=old_repeats/responses-00005.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/000001/task=old_rolling/responses-00006.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/000001/task=old_rolling/responses-00007.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/000001/task=riddles/responses-00008.parquet', coalesce(getvariable('snapshot'), '.') || '/compact/responses/schema.parquet'], hive_partitioning = false) AS answers
        ON part.cell_id = answers.cell_id
        AND part.item = answers.item
        AND part.filter = answers.filter
        AND part.repeat = answers.repeat
        AND part.generation = answers.generation
    UNION ALL BY NAME
    SELECT *
    FROM _older
)
SELECT
    cell_id,
    model,
    task,
    item,
    item_hash,
    filter,
    repeat,
    generation,
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
    responses,
    loglikelihoods,
    is_greedy,
    filtered
FROM older;

-- matrix: one row per collected item of a cell: the primary filter's verdict over all repeats (repeat 0).
-- An item that was never collected has no row; one that was asked but has no verdict has score null and a failure kind.
-- One column of a wide matrix is one cell_id: prompting, dtype, quantization and items_digest tell apart what must not
-- be mixed under one model name.
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

-- imports: one row per file that was imported: whence it is, and what became of its rows.
CREATE VIEW imports AS
SELECT
    import_id,
    imported_from,
    imported_at,
    format,
    format_version,
    path,
    sha256,
    bytes,
    licence,
    rows,
    records,
    known,
    folded,
    rejected
FROM read_parquet([coalesce(getvariable('snapshot'), '.') || '/imports/schema.parquet', coalesce(getvariable('snapshot'), '.') || '/imports/all.parquet'], hive_partitioning = false);

-- rejects: one row per row of a source that cannot be trusted, and is no record.
CREATE VIEW rejects AS
SELECT
    import_id,
    imported_from,
    path,
    source_file,
    source_row,
    kind,
    message,
    model,
    task,
    source_key
FROM read_parquet([coalesce(getvariable('snapshot'), '.') || '/rejects/schema.parquet', coalesce(getvariable('snapshot'), '.') || '/rejects/all.parquet'], hive_partitioning = false);

-- suspicions: what looks wrong in a source and was imported as it is.
CREATE VIEW suspicions AS
SELECT
    import_id,
    imported_from,
    path,
    source_file,
    kind,
    message,
    model,
    task,
    cell_id
FROM read_parquet([coalesce(getvariable('snapshot'), '.') || '/suspicions/schema.parquet', coalesce(getvariable('snapshot'), '.') || '/suspicions/all.parquet'], hive_partitioning = false);

-- failures: one row per failure. level 'cell': a model, task, cell or shard that could not be collected, as often as it
-- happened; level 'item': an item of the matrix without a verdict, so that these rows add up to coverage's
-- unanswered + failed. file: the object of the lake that could not be read, where that is the failure.
CREATE VIEW failures AS
SELECT
    'cell' AS level,
    kind,
    model,
    task,
    cell_id,
    first_item,
    last_item,
    run_id,
    failed_at,
    message,
    file
FROM read_parquet([coalesce(getvariable('snapshot'), '.') || '/failures/schema.parquet', coalesce(getvariable('snapshot'), '.') || '/failures/all.parquet'], hive_partitioning = false)
UNION ALL
SELECT
    'item' AS level,
    failure AS kind,
    model,
    task,
    cell_id,
    item AS first_item,
    item AS last_item,
    NULL AS run_id,
    NULL AS failed_at,
    NULL AS message,
    NULL AS file
FROM matrix
WHERE failure IS NOT NULL;

-- prices: one row per model or tier of sizes (in any case of letters), provider and day from which the price holds; of
-- two that were put into the lake for the same day the later. USD per million tokens. Put in by prices.py.
CREATE VIEW prices AS
SELECT *
FROM read_parquet([coalesce(getvariable('snapshot'), '.') || '/prices/schema.parquet', coalesce(getvariable('snapshot'), '.') || '/prices/all.parquet'], hive_partitioning = false)
QUALIFY row_number() OVER (
    PARTITION BY lower(model), provider, over_parameters, to_parameters, valid_from
    ORDER BY added_at DESC, source, model
) = 1;

-- gpu_prices: one row per accelerator (in any case of letters), provider and day from which the price holds; of two for the same day the later.
CREATE VIEW gpu_prices AS
SELECT *
FROM read_parquet([coalesce(getvariable('snapshot'), '.') || '/gpu_prices/schema.parquet', coalesce(getvariable('snapshot'), '.') || '/gpu_prices/all.parquet'], hive_partitioning = false)
QUALIFY row_number() OVER (
    PARTITION BY lower(accelerator), provider, valid_from ORDER BY added_at DESC, source, accelerator
) = 1;

-- price_names: one row per model or accelerator that somebody said is priced by another name's entry, the newest word
-- in any case of letters.
CREATE VIEW price_names AS
SELECT *
FROM read_parquet([coalesce(getvariable('snapshot'), '.') || '/price_names/schema.parquet', coalesce(getvariable('snapshot'), '.') || '/price_names/all.parquet'], hive_partitioning = false)
QUALIFY row_number() OVER (PARTITION BY lower(name) ORDER BY added_at DESC, source, name) = 1;

-- model_prices: one row per model that a cell asked, with the price that its tokens are charged by.
-- basis says how it was found: 'named' by price_names, 'equal' names of model (or its source) and entry, in any case of
-- letters, 'short' the same for the one organisation/name that ends as a model's name without an organisation does (a name
-- that two organisations have is nobody's, and one whose source names another organisation is another model's), 'tier' by
-- the number of parameters alone, null: unpriced, and so are all its costs. Among several entries the cheapest by prompt +
-- completion counts, then provider and name. Prices are those of the newest day; others by
-- SET VARIABLE prices_on = '2025-01-31', and one provider's alone by SET VARIABLE price_provider = 'together_ai'.
CREATE VIEW model_prices AS
WITH valid AS (
    SELECT *
    FROM prices
    WHERE valid_from <= coalesce(CAST(getvariable('prices_on') AS DATE), DATE '9999-12-31')
        AND provider = coalesce(getvariable('price_provider')::VARCHAR, provider)
    QUALIFY row_number() OVER (
        PARTITION BY lower(model), provider, over_parameters, to_parameters
        ORDER BY valid_from DESC
    ) = 1
),

-- Names without an organisation -> the one full name that ends so, whatever the day and the provider.
full_names AS (
    SELECT split_part(full_name, '/', 2) AS short_name, any_value(full_name) AS full_name
    FROM (SELECT lower(name) AS full_name FROM price_names UNION SELECT lower(model) FROM prices)
    WHERE regexp_full_match(full_name, '[^/]+/[^/]+')
    GROUP BY ALL
    HAVING count(*) = 1
),

asked AS (
    SELECT
        cells.model,
        min(cells.source) AS source,
        max(models.parameters) AS parameters,
        bool_or(regexp_full_match(cells.source, '[^/]+/[^/]+')) AS has_organisation,
        list(lower(cells.source)) AS sources
    FROM cells
    LEFT JOIN models ON cells.model = models.model AND cells.revision IS NOT DISTINCT FROM models.revision
    GROUP BY cells.model
),

known AS (
    SELECT
        asked.*,
        full_name IS NOT NULL AS is_short,
        coalesce(full_name, lower(asked.model)) AS known_as
    FROM asked
    LEFT JOIN full_names
        ON short_name = lower(asked.model)
        AND (NOT has_organisation OR list_unique(sources) = 1 AND sources[1] = full_name)
        AND short_name NOT IN (SELECT lower(name) FROM price_names UNION SELECT lower(model) FROM prices)
),

named AS (
    SELECT known.*, price_names.name IS NOT NULL AS is_named, price_name, price_names.provider AS named_provider
    FROM known
    LEFT JOIN price_names ON known_as = lower(price_names.name)
),

candidates AS (
    SELECT
        named.model,
        1 AS place,
        CASE WHEN is_short THEN 'short' ELSE 'named' END AS basis,
        valid.* RENAME (model AS price_model)
    FROM named
    INNER JOIN valid
        ON lower(valid.model) = lower(named.price_name)
        AND valid.provider = coalesce(named.named_provider, valid.provider)
    UNION ALL
    SELECT named.model, 2, CASE WHEN is_short THEN 'short' ELSE 'equal' END, valid.*
    FROM named
    INNER JOIN valid ON lower(valid.model) = known_as
    WHERE NOT is_named
    UNION ALL
    SELECT named.model, 2, 'equal', valid.*
    FROM named
    INNER JOIN valid ON lower(valid.model) = lower(named.source)
    WHERE NOT is_named
    UNION ALL
    SELECT named.model, 3, 'tier', valid.*
    FROM named
    INNER JOIN valid
        ON named.parameters > valid.over_parameters
        AND named.parameters <= coalesce(valid.to_parameters, named.parameters)
    WHERE NOT is_named
),

chosen AS (
    SELECT *
    FROM candidates
    WHERE usd_per_million_prompt IS NOT NULL AND usd_per_million_completion IS NOT NULL
    QUALIFY row_number() OVER (
        PARTITION BY model
        ORDER BY place, usd_per_million_prompt + usd_per_million_completion, provider, price_model
    ) = 1
)

SELECT
    asked.model,
    asked.parameters,
    basis,
    price_model,
    provider,
    usd_per_million_prompt,
    usd_per_million_cached,
    usd_per_million_completion,
    usd_per_request,
    valid_from,
    chosen.source
FROM asked
LEFT JOIN chosen USING (model);

-- _serving_usd: what an answer costs, in USD, by prices in USD per million tokens and per request; null where a count or a
-- price is not known. A cached_price is charged for those prompt tokens that a host had cached; without
-- one they cost what the others do.
CREATE MACRO _serving_usd(
    prompt_tokens, cached_tokens, completion_tokens, prompt_price, cached_price, completion_price, request_price
) AS (
    (
        CASE
            WHEN cached_price IS NULL OR cached_tokens IS NULL OR cached_tokens > prompt_tokens
                THEN prompt_tokens * prompt_price
            ELSE (prompt_tokens - cached_tokens) * prompt_price + cached_tokens * cached_price
        END
        + completion_tokens * completion_price
    ) / 1000000 + coalesce(request_price, 0)
);

-- costs: one row per row of the matrix: what a router's user pays for the answer. USD.
-- serving_usd: (prompt_tokens × its price + completion_tokens × its price) / 1,000,000 + the price per request, by
-- model_prices. Prompt tokens that a host had cached cost what it asks for these, where an imported record and its price
-- tell both; an engine's own prefix cache saves a router's user nothing. stated_usd: what an imported record's source
-- says. usd: serving_usd, else stated_usd; usd_from says which ('price' or 'stated').
-- Three that must not be mixed: unknown = 'unpriced' (tokens, but no price), 'untokened' (no token counts), and a
-- serving_usd of 0, which is a price of nothing. unknown says why serving_usd is null.
CREATE VIEW costs AS
WITH charged AS (
    SELECT
        matrix.*,
        _serving_usd(
            prompt_tokens,
            cached_tokens,
            completion_tokens,
            usd_per_million_prompt,
            CASE WHEN imported_from IS NOT NULL THEN usd_per_million_cached END,
            usd_per_million_completion,
            usd_per_request
        ) AS serving_usd,
        basis,
        price_model,
        provider
    FROM matrix
    INNER JOIN model_prices USING (model)
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
    correct,
    failure,
    prompt_tokens,
    completion_tokens,
    latency_s,
    serving_usd,
    stated_usd,
    coalesce(serving_usd, stated_usd) AS usd,
    CASE WHEN serving_usd IS NOT NULL THEN 'price' WHEN stated_usd IS NOT NULL THEN 'stated' END AS usd_from,
    CASE
        WHEN prompt_tokens IS NULL OR completion_tokens IS NULL THEN 'untokened'
        WHEN serving_usd IS NULL THEN 'unpriced'
    END AS unknown,
    basis,
    price_model,
    provider
FROM charged;

-- _gpu_rates: one row per name of a GPU, in lower case, that finds a price: its own entry in gpu_prices or the one that
-- price_names gives it, the newest up to prices_on (as in model_prices), the cheapest provider's.
CREATE VIEW _gpu_rates AS
WITH valid AS (
    SELECT *
    FROM gpu_prices
    WHERE valid_from <= coalesce(CAST(getvariable('prices_on') AS DATE), DATE '9999-12-31')
    QUALIFY row_number() OVER (PARTITION BY lower(accelerator), provider ORDER BY valid_from DESC) = 1
),

named AS (
    SELECT lower(name) AS name, lower(price_name) AS price_name, provider
    FROM price_names
    UNION ALL
    SELECT DISTINCT lower(accelerator), lower(accelerator), NULL
    FROM valid
    WHERE lower(accelerator) NOT IN (SELECT lower(name) FROM price_names)
)

SELECT named.name, valid.accelerator, valid.provider, valid.usd_per_gpu_hour
FROM named
INNER JOIN valid
    ON lower(valid.accelerator) = named.price_name
    AND valid.provider = coalesce(named.provider, valid.provider)
QUALIFY row_number() OVER (PARTITION BY named.name ORDER BY usd_per_gpu_hour, valid.provider) = 1;

-- collection_costs: one row per committed shard that an engine worked for: what collecting it cost, not what it would
-- cost to ask again. usd: (engine_seconds + load_seconds) × gpus × the newest price of an hour of its GPU / 3600, by the
-- device's name (gpu_prices, or price_names and these; the cheapest provider's), else by its class's; null without a GPU
-- or a price. Engines that died left no shard, and are not in it. prices_on as in model_prices.
CREATE VIEW collection_costs AS
WITH worked AS (
    SELECT
        *,
        coalesce(TRY_CAST(json_extract_string(facts, '$.gpus') AS DOUBLE), 1) AS gpus,
        json_extract_string(facts, '$.gpu_class') AS gpu_class
    FROM shards
    WHERE engine_seconds IS NOT NULL
),

gpus AS (
    SELECT DISTINCT gpu, gpu_class
    FROM worked
),

priced AS (
    SELECT gpus.gpu, gpus.gpu_class, rates.accelerator, rates.provider, rates.usd_per_gpu_hour
    FROM gpus
    INNER JOIN _gpu_rates AS rates ON rates.name IN (lower(gpus.gpu), lower(gpus.gpu_class))
    QUALIFY row_number() OVER (
        PARTITION BY gpus.gpu, gpus.gpu_class
        ORDER BY CASE WHEN rates.name = lower(gpus.gpu) THEN 0 ELSE 1 END
    ) = 1
)

SELECT
    worked.cell_id,
    worked.generation,
    worked.first_item,
    worked.last_item,
    worked.run_id,
    worked.gpu,
    worked.gpu_class,
    worked.gpus,
    worked.engine_seconds,
    worked.load_seconds,
    priced.accelerator,
    priced.provider,
    priced.usd_per_gpu_hour,
    (worked.engine_seconds + coalesce(worked.load_seconds, 0)) * worked.gpus * priced.usd_per_gpu_hour / 3600 AS usd
FROM worked
LEFT JOIN priced
    ON worked.gpu IS NOT DISTINCT FROM priced.gpu AND worked.gpu_class IS NOT DISTINCT FROM priced.gpu_class;

-- _totals: one row per cell with at least one collected item: counts and sums over its rows of the matrix.
-- unanswered: the failure kinds of schemas.failures.UNANSWERED; every other kind is failed.
-- cached_share: of the engine's tokens, those read from its prefix cache (an item's choices share their context, so
-- cached_tokens can exceed prompt_tokens, which count it once). Means and sums are over the items where it is known.
CREATE VIEW _totals AS
SELECT
    cell_id,
    count(*) AS attempted,
    count(score) AS scored,
    count(*) FILTER (failure IN ('empty_answer')) AS unanswered,
    count(*) FILTER (failure NOT IN ('empty_answer')) AS failed,
    avg(score) AS score,
    -- Null beyond 1e150, whose square is no number: word_perplexity of one long word gets there.
    CASE WHEN max(abs(score)) < 1e150 THEN stddev_samp(CASE WHEN abs(score) < 1e150 THEN score END) END AS deviation,
    bool_and(score IN (0, 1)) FILTER (score IS NOT NULL) AS zero_or_one,
    avg(prompt_tokens) AS mean_prompt_tokens,
    avg(completion_tokens) AS mean_completion_tokens,
    sum(prompt_tokens)::BIGINT AS prompt_tokens,
    sum(completion_tokens)::BIGINT AS completion_tokens,
    sum(engine_tokens)::BIGINT AS engine_tokens,
    sum(cached_tokens)::BIGINT AS cached_tokens,
    sum(cached_tokens) / nullif(sum(engine_tokens) FILTER (cached_tokens IS NOT NULL), 0) AS cached_share,
    avg(latency_s) AS mean_latency_s,
    -- Rows whose tokens are known, and what of their sum is charged how: costs of a cell are linear in these.
    count(*) FILTER (prompt_tokens IS NOT NULL AND completion_tokens IS NOT NULL) AS tokened,
    sum(prompt_tokens) FILTER (completion_tokens IS NOT NULL)::BIGINT AS charged_prompt,
    sum(completion_tokens) FILTER (prompt_tokens IS NOT NULL)::BIGINT AS charged_completion,
    sum(cached_tokens) FILTER (
        imported_from IS NOT NULL AND cached_tokens <= prompt_tokens AND completion_tokens IS NOT NULL
    )::BIGINT AS charged_cached,
    count(stated_usd) AS stated,
    sum(stated_usd) AS stated_usd,
    count(stated_usd) FILTER (prompt_tokens IS NULL OR completion_tokens IS NULL) AS stated_untokened,
    sum(stated_usd) FILTER (prompt_tokens IS NULL OR completion_tokens IS NULL) AS stated_untokened_usd
FROM matrix
GROUP BY cell_id;

-- _cell_costs: one row per cell with at least one collected item: what all its answers cost, and of how many that is known.
-- The same sums as over the view costs, from the sums of tokens: prices are linear.
CREATE VIEW _cell_costs AS
SELECT
    cell_id,
    basis,
    attempted,
    tokened,
    CASE WHEN basis IS NULL THEN 0 ELSE tokened END AS priced,
    tokened - priced AS unpriced,
    attempted - tokened AS untokened,
    CASE WHEN basis IS NULL THEN stated ELSE tokened + stated_untokened END AS usd_items,
    CASE
        WHEN usd_items = 0 THEN NULL
        WHEN basis IS NULL THEN stated_usd
        ELSE
            (
                coalesce(charged_prompt, 0) * usd_per_million_prompt
                + coalesce(charged_completion, 0) * usd_per_million_completion
                + coalesce(charged_cached * (usd_per_million_cached - usd_per_million_prompt), 0)
            ) / 1000000
            + tokened * coalesce(usd_per_request, 0)
            + coalesce(stated_untokened_usd, 0)
    END AS usd
FROM _totals
INNER JOIN cells USING (cell_id)
INNER JOIN model_prices USING (model);

-- coverage: one row per planned cell: how many of its items were collected, and what became of them.
-- attempted = scored + unanswered + failed; missing = planned - attempted. Primary filter, repeat 0. suspicions: the kinds
-- of what looks wrong in an imported cell (view suspicions); null where nothing does. Of the attempted items, priced have
-- tokens and a price (be it 0), unpriced tokens alone, untokened no token counts; stated a cost by their source.
CREATE VIEW coverage AS
WITH suspected AS (
    SELECT cell_id, string_agg(DISTINCT kind, ', ' ORDER BY kind) AS suspicions
    FROM suspicions
    WHERE cell_id IS NOT NULL
    GROUP BY cell_id
)
SELECT
    cells.cell_id,
    cells.model,
    cells.task,
    cells.items_digest,
    cells.prompting,
    cells.dtype,
    cells.quantization,
    cells.imported_from,
    cells.planned_items AS planned,
    coalesce(_totals.attempted, 0) AS attempted,
    coalesce(_totals.scored, 0) AS scored,
    coalesce(_totals.unanswered, 0) AS unanswered,
    coalesce(_totals.failed, 0) AS failed,
    cells.planned_items - coalesce(_totals.attempted, 0) AS missing,
    coalesce(_cell_costs.priced, 0) AS priced,
    coalesce(_cell_costs.unpriced, 0) AS unpriced,
    coalesce(_cell_costs.untokened, 0) AS untokened,
    coalesce(_totals.stated, 0) AS stated,
    suspected.suspicions
FROM cells
LEFT JOIN _totals USING (cell_id)
LEFT JOIN _cell_costs USING (cell_id)
LEFT JOIN suspected USING (cell_id);

-- leaderboard: one row per cell with at least one collected item. score: mean over its scored items; a cell with fewer
-- scored items than its neighbours was measured on fewer, so look at the counts and the interval before the rank.
-- rank: by score among the cells of the same task, items, prompting and metric; null without a score.
-- stderr: sample standard deviation / sqrt(scored), as lm-eval reports it; null below two scored items.
-- ci_low, ci_high: 95 % interval. ci_method says which:
--   wilson  every score is 0 or 1: Wilson's score interval, (p + z²/2n ± z·sqrt(p(1 − p)/n + z²/4n²)) / (1 + z²/n),
--           E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22 (1927) 209-212
--   normal  otherwise: score ± z · stderr, cut to [0, 1] for metrics that live there; null below two scored items
-- with z = 1.959963984540054, the 97.5 % quantile of the standard normal distribution.
-- usd_per_1000: USD for a thousand items, the mean over the usd_items whose cost is known (views costs, model_prices;
-- price_basis: how the price was found, null where only the source states costs).
CREATE VIEW leaderboard AS
WITH estimates AS (
    SELECT
        _totals.*,
        1.959963984540054::DOUBLE AS z,
        deviation / sqrt(scored) AS stderr,
        z * z / nullif(scored, 0) AS zz_n,
        cells.correct_threshold IS NOT NULL AND score BETWEEN 0 AND 1 AS in_unit,
        z * sqrt(greatest(score * (1 - score) + zz_n / 4, 0) / nullif(scored, 0)) AS wilson_half
    FROM _totals
    INNER JOIN cells USING (cell_id)
)
SELECT
    cells.task,
    CASE WHEN estimates.score IS NOT NULL THEN rank() OVER (
        PARTITION BY cells.task, cells.items_digest, cells.prompting, cells.metric
        ORDER BY CASE WHEN cells.higher_is_better THEN -estimates.score ELSE estimates.score END NULLS LAST
    ) END AS rank,
    cells.model,
    cells.metric,
    estimates.score,
    estimates.stderr,
    CASE
        WHEN zero_or_one THEN (score + zz_n / 2 - wilson_half) / (1 + zz_n)
        WHEN stderr IS NULL THEN NULL
        WHEN in_unit THEN greatest(score - z * stderr, 0)
        ELSE score - z * stderr
    END AS ci_low,
    CASE
        WHEN zero_or_one THEN (score + zz_n / 2 + wilson_half) / (1 + zz_n)
        WHEN stderr IS NULL THEN NULL
        WHEN in_unit THEN least(score + z * stderr, 1)
        ELSE score + z * stderr
    END AS ci_high,
    CASE WHEN zero_or_one THEN 'wilson' WHEN stderr IS NOT NULL THEN 'normal' END AS ci_method,
    estimates.attempted,
    estimates.scored,
    estimates.unanswered,
    estimates.failed,
    estimates.mean_prompt_tokens,
    estimates.mean_completion_tokens,
    estimates.prompt_tokens,
    estimates.completion_tokens,
    estimates.engine_tokens,
    estimates.cached_tokens,
    estimates.cached_share,
    estimates.mean_latency_s,
    1000 * _cell_costs.usd / _cell_costs.usd_items AS usd_per_1000,
    _cell_costs.usd_items,
    _cell_costs.basis AS price_basis,
    cells.num_fewshot,
    cells.chat_template,
    cells.prompting,
    cells.items_digest,
    cells.revision,
    cells.dtype,
    cells.quantization,
    cells.max_length,
    cells.higher_is_better,
    cells.imported_from,
    cells.cell_id
FROM estimates
INNER JOIN cells USING (cell_id)
INNER JOIN _cell_costs USING (cell_id);

-- _members: one row per cell with a scored item, and the pool that it is in: cells whose verdicts can be compared item by
-- item, which are those of one task, items, prompting, dtype, quantization and metric. pool: its first cell; pool_number
-- and member are the same as numbers, which group and compare several times as fast as texts. merit_sign: score times it
-- is larger where it is better. With the prices of its model (model_prices), charged as in the view costs.
CREATE VIEW _members AS
SELECT
    cells.*,
    min(cell_id) OVER same_group AS pool,
    count(*) OVER same_group AS models,
    dense_rank() OVER (ORDER BY task, items_digest, prompting, dtype, quantization, metric)::INTEGER AS pool_number,
    row_number() OVER (ORDER BY model, cell_id)::INTEGER AS member,
    CASE WHEN higher_is_better THEN 1 ELSE -1 END::DOUBLE AS merit_sign,
    usd_per_million_prompt,
    CASE WHEN imported_from IS NOT NULL THEN usd_per_million_cached END AS usd_per_million_cached,
    usd_per_million_completion,
    usd_per_request
FROM cells
INNER JOIN _totals USING (cell_id)
INNER JOIN model_prices USING (model)
WHERE _totals.scored > 0
WINDOW same_group AS (PARTITION BY task, items_digest, prompting, dtype, quantization, metric);

-- oracle: one row per task, items, prompting, dtype, quantization and metric: what choosing the best model for every
-- item would score, against the best single model.
-- The pool (models): the group's cells with at least one scored item. Everything is measured on the items that every
-- model of the pool scored (items), so a missing, unanswered or failed item is never counted as wrong and both sides
-- see the same items: gap is never negative. items_scored_by_any - items is what that leaves out; where it is large,
-- some model was collected on few items. No common item: the scores are null.
CREATE VIEW oracle AS
-- Read twice rather than kept: at 200M records the copy would not fit in memory.
WITH answers AS NOT MATERIALIZED (
    SELECT _members.pool, _members.cell_id, _members.models, _members.higher_is_better, matrix.item, matrix.score
    FROM matrix
    INNER JOIN _members USING (cell_id)
    WHERE matrix.score IS NOT NULL
),

items_of_pool AS (
    SELECT
        pool,
        item,
        count(*) = any_value(models) AS scored_by_all,
        CASE WHEN any_value(higher_is_better) THEN max(score) ELSE min(score) END AS best_score
    FROM answers
    GROUP BY pool, item
),

pools AS (
    SELECT
        pool,
        count(*) FILTER (scored_by_all) AS items,
        count(*) AS items_scored_by_any,
        avg(best_score) FILTER (scored_by_all) AS oracle_score
    FROM items_of_pool
    GROUP BY pool
),

singles AS (
    SELECT answers.cell_id, avg(answers.score) AS score
    FROM answers
    INNER JOIN items_of_pool ON answers.pool = items_of_pool.pool AND answers.item = items_of_pool.item
    WHERE items_of_pool.scored_by_all
    GROUP BY answers.cell_id
)

SELECT
    _members.task,
    _members.models,
    pools.items,
    pools.items_scored_by_any,
    _members.metric,
    CASE WHEN singles.score IS NOT NULL THEN _members.model END AS best_model,
    singles.score AS best_model_score,
    pools.oracle_score,
    -- greatest: the two means add the same numbers in another order, which can differ in the last bit.
    CASE WHEN singles.score IS NOT NULL THEN greatest(
        CASE WHEN _members.higher_is_better THEN 1 ELSE -1 END * (pools.oracle_score - singles.score), 0
    ) END AS gap,
    _members.num_fewshot,
    _members.chat_template,
    _members.prompting,
    _members.items_digest,
    _members.dtype,
    _members.quantization,
    _members.higher_is_better,
    _members.imported_from,
    CASE WHEN singles.score IS NOT NULL THEN _members.cell_id END AS best_cell_id
FROM _members
INNER JOIN pools USING (pool)
LEFT JOIN singles USING (cell_id)
QUALIFY row_number() OVER (
    PARTITION BY _members.pool
    ORDER BY
        CASE WHEN _members.higher_is_better THEN -singles.score ELSE singles.score END NULLS LAST,
        _members.model,
        _members.cell_id
) = 1;

-- oracle_items: one row per pool (as in oracle) and item that any of its models scored: what the best answer scores, and
-- what it costs at least. Among the models with the best score the cheapest counts, of those whose cost is known (USD,
-- view costs), of equals the first by name; where none is known, the first by name, and usd is null.
-- models_scored < models: some model has no verdict.
CREATE VIEW oracle_items AS
WITH members AS MATERIALIZED (
    FROM _members
),

answers AS (
    SELECT
        pool_number,
        member,
        item,
        score,
        correct,
        -merit_sign * score AS loss,
        coalesce(
            _serving_usd(
                prompt_tokens,
                cached_tokens,
                completion_tokens,
                usd_per_million_prompt,
                usd_per_million_cached,
                usd_per_million_completion,
                usd_per_request
            ),
            stated_usd,
            'infinity'
        ) AS usd
    FROM matrix
    INNER JOIN members USING (cell_id)
),

-- In one pass: the least of the structs has the best score, of these the least cost, an unknown one last. The aggregates
-- pass over what has no score: WHERE score IS NOT NULL took as long as all the rest.
chosen AS (
    SELECT
        pool_number,
        item,
        count(score) AS models_scored,
        count(*) FILTER (score IS NOT NULL AND correct) AS models_correct,
        min(struct_pack(loss := loss, usd := usd, member := member)) FILTER (score IS NOT NULL) AS best
    FROM answers
    GROUP BY pool_number, item
)

SELECT
    members.task,
    chosen.item,
    members.models,
    chosen.models_scored,
    chosen.models_correct,
    -members.merit_sign * best.loss + 0 AS best_score, -- + 0: 0 and not -0
    members.model,
    CASE WHEN best.usd < 'infinity' THEN best.usd END AS usd,
    members.items_digest,
    members.prompting,
    members.dtype,
    members.quantization,
    members.metric,
    members.imported_from,
    members.cell_id,
    members.pool
FROM chosen
INNER JOIN members ON chosen.best.member = members.member;

-- cheapest_correct: one row per pool (as in oracle) and item: the cheapest of the models that are right, of those whose
-- cost is known (USD, view costs), of equals the first by name. model null: nobody is right, or of nobody who is the cost
-- is known (models_correct tells which). An item without a verdict of a model is no wrong answer: models_scored < models.
CREATE VIEW cheapest_correct AS
WITH members AS MATERIALIZED (
    FROM _members
),

answers AS (
    SELECT
        pool_number,
        member,
        item,
        correct,
        coalesce(
            _serving_usd(
                prompt_tokens,
                cached_tokens,
                completion_tokens,
                usd_per_million_prompt,
                usd_per_million_cached,
                usd_per_million_completion,
                usd_per_request
            ),
            stated_usd
        ) AS usd
    FROM matrix
    INNER JOIN members USING (cell_id)
),

chosen AS (
    SELECT
        pool_number,
        item,
        count(correct) AS models_scored,
        count(*) FILTER (correct) AS models_correct,
        min(struct_pack(usd := usd, member := member)) FILTER (correct AND usd IS NOT NULL) AS best
    FROM answers
    GROUP BY pool_number, item
)

SELECT
    pools.task,
    chosen.item,
    pools.models,
    chosen.models_scored,
    chosen.models_correct,
    members.model,
    best.usd,
    pools.items_digest,
    pools.prompting,
    pools.dtype,
    pools.quantization,
    pools.metric,
    pools.imported_from,
    members.cell_id,
    pools.pool
FROM chosen
INNER JOIN members AS pools ON chosen.pool_number = pools.pool_number AND pools.cell_id = pools.pool
LEFT JOIN members ON chosen.best.member = members.member;

-- pareto: one row per cell of the leaderboard that no other of the same task, items, prompting and metric beats: none has
-- at least its score for at most its cost, and one of them better. Cells whose cost is unknown are not compared;
-- usd_items < scored: its cost is the mean of fewer items than its score.
CREATE VIEW pareto AS
SELECT * EXCLUDE (merit, best_before)
FROM (
    SELECT
        *,
        CASE WHEN higher_is_better THEN score ELSE -score END AS merit,
        max(CASE WHEN higher_is_better THEN score ELSE -score END) OVER (
            PARTITION BY task, items_digest, prompting, metric
            ORDER BY usd_per_1000, CASE WHEN higher_is_better THEN -score ELSE score END
            RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW EXCLUDE GROUP
        ) AS best_before
    FROM leaderboard
    WHERE usd_per_1000 IS NOT NULL AND score IS NOT NULL
)
WHERE best_before IS NULL OR merit > best_before;

-- complementarity: one row per pair of cells of a pool (as in oracle): on the items of which both are known to be right or
-- wrong, how many both solve, one alone, or neither. union_score: what the better of the two for each item would be right
-- on. m models make m(m - 1)/2 pairs: in a large pool ask for some (WHERE model_a = … or model_b = …), or use
-- collectors.router_metrics.
CREATE VIEW complementarity AS
WITH verdicts AS NOT MATERIALIZED (
    SELECT _members.*, matrix.item, matrix.correct
    FROM matrix
    INNER JOIN _members USING (cell_id)
    WHERE matrix.correct IS NOT NULL
)

SELECT
    a.task,
    a.model AS model_a,
    b.model AS model_b,
    count(*) AS items,
    count(*) FILTER (a.correct AND b.correct) AS both,
    count(*) FILTER (a.correct AND NOT b.correct) AS only_a,
    count(*) FILTER (b.correct AND NOT a.correct) AS only_b,
    count(*) FILTER (NOT a.correct AND NOT b.correct) AS neither,
    count(*) FILTER (a.correct OR b.correct) / count(*) AS union_score,
    a.items_digest,
    a.prompting,
    a.dtype,
    a.quantization,
    a.metric,
    a.cell_id AS cell_id_a,
    b.cell_id AS cell_id_b
FROM verdicts AS a
INNER JOIN verdicts AS b ON a.pool = b.pool AND a.item = b.item AND a.cell_id < b.cell_id
GROUP BY ALL;

-- throughput: one row per cell with at least one collected item: how fast its answers came. Rates are over the seconds in
-- which the engine worked, summed over the cell's committed shards; items that were collected twice count twice.
-- generated_tokens_per_s: null where tokens generated are not the completion tokens (choices are scored, not generated),
-- where some answer's are unknown, and where items were collected twice. Means are over the items whose time is known:
-- primary filter, repeat 0; a latency is that of a request beside concurrency others. One model on one GPU is the sum of
-- its rows: sum(items) / sum(engine_seconds). By GPU where a cell has several: shards.
CREATE VIEW throughput AS
WITH worked AS (
    SELECT
        cell_id,
        string_agg(DISTINCT engine, ', ' ORDER BY engine) AS engine,
        string_agg(DISTINCT gpu, ', ' ORDER BY gpu) AS gpu,
        count(*) AS shards,
        sum(last_item - first_item + 1)::BIGINT AS items,
        sum(requests)::BIGINT AS requests,
        sum(engine_tokens)::BIGINT AS engine_tokens,
        sum(engine_seconds) AS engine_seconds,
        sum(wall_seconds) AS wall_seconds,
        sum(load_seconds) AS load_seconds,
        count(engine_tokens) = count(*) AS tokens_known,
        sum(concurrency * engine_seconds) / nullif(sum(engine_seconds) FILTER (concurrency IS NOT NULL), 0)
            AS concurrency
    FROM shards
    WHERE engine_seconds IS NOT NULL
    GROUP BY cell_id
),

answered AS (
    SELECT
        records.cell_id,
        count(*) AS attempted,
        count(latency_s) AS timed_items,
        avg(latency_s) AS mean_latency_s,
        avg(ttft_s) AS mean_ttft_s,
        sum(completion_tokens)::BIGINT AS completion_tokens,
        -- Of these nobody was asked, and nothing was generated.
        bool_and(completion_tokens IS NOT NULL OR coalesce(failure = 'prompt_too_long', false)) AS all_counted
    FROM records
    INNER JOIN cells ON records.cell_id = cells.cell_id AND records.filter = cells.filter
    WHERE repeat = 0
    GROUP BY records.cell_id
)

SELECT
    cells.task,
    cells.model,
    worked.engine,
    worked.gpu,
    worked.items,
    worked.engine_seconds,
    worked.items / nullif(worked.engine_seconds, 0) AS items_per_s,
    CASE WHEN tokens_known THEN worked.engine_tokens / nullif(worked.engine_seconds, 0) END AS engine_tokens_per_s,
    CASE
        WHEN cells.output_type = 'generate_until' AND all_counted AND worked.items = answered.attempted
            THEN answered.completion_tokens / nullif(worked.engine_seconds, 0)
    END AS generated_tokens_per_s,
    answered.mean_latency_s,
    answered.mean_ttft_s,
    answered.timed_items,
    worked.concurrency,
    worked.shards,
    worked.requests,
    worked.wall_seconds,
    worked.load_seconds,
    cells.num_fewshot,
    cells.chat_template,
    cells.prompting,
    cells.items_digest,
    cells.revision,
    cells.dtype,
    cells.quantization,
    cells.imported_from,
    cells.cell_id
FROM answered
INNER JOIN cells USING (cell_id)
LEFT JOIN worked USING (cell_id);

-- profile: one row per run, model and stage: where the time of the shards went that the run committed. Stages of a worker
-- run side by side (it judges one shard while its engine answers the next), so they add up to more than the run took.
CREATE VIEW profile AS
WITH stages AS (
    SELECT shards.run_id, cells.model, json_extract(facts, '$.stages') AS seconds
    FROM shards
    INNER JOIN cells USING (cell_id)
    WHERE json_extract(facts, '$.stages') IS NOT NULL
),

named AS (
    SELECT run_id, model, unnest(json_keys(seconds)) AS stage, seconds
    FROM stages
)

SELECT
    run_id,
    model,
    stage,
    sum(json_extract(seconds, '$.' || stage)::DOUBLE) AS seconds,
    count(*) AS shards
FROM named
GROUP BY run_id, model, stage;

-- models: one row per model at one revision, all that rows of models/ say of it put together.
-- Rows with listed_at are from a hub's catalog (catalog.py). skipped says why a config's catalog leaves one out: the kind of
-- its problem; 'unread' not read yet; 'older' another revision counts, the first with the files of the newest; 'adapter',
-- 'gguf' or 'no_weights' by its files; 'remote_code' or 'unknown_architecture' vLLM has no class for it; 'quantized' a
-- quantized copy; 'copy' another model has the same weights, the first made of those that would be collected.
CREATE VIEW models AS
WITH said AS (
    SELECT
        model,
        source,
        revision,
        -- what was read of the files counts before what the hub says of files that it does not give
        arg_max(architecture, problem IS NULL) AS architecture,
        arg_max(parameters, problem IS NULL) AS parameters,
        arg_max(weight_bytes, problem IS NULL) AS weight_bytes,
        arg_max(max_length, problem IS NULL) AS max_length,
        arg_max(tokenizer_hash, problem IS NULL) AS tokenizer_hash,
        arg_max(chat_template_hash, problem IS NULL) AS chat_template_hash,
        arg_max(dtype, problem IS NULL) AS dtype,
        arg_max(quantization, problem IS NULL) AS quantization,
        arg_max(weights, problem IS NULL) AS weights,
        arg_max(weights_hash, problem IS NULL) AS weights_hash,
        arg_max(tensors_hash, problem IS NULL) AS tensors_hash,
        arg_max(files_hash, problem IS NULL) AS files_hash,
        arg_max(config, problem IS NULL) AS config,
        arg_max(generation_config, problem IS NULL) AS generation_config,
        arg_max(licence, said_at) AS licence,
        arg_max(library, said_at) AS library,
        arg_max(pipeline_tag, said_at) AS pipeline_tag,
        arg_max(base_model, problem IS NULL) AS base_model,
        arg_max(base_relation, problem IS NULL) AS base_relation,
        arg_max(gated, said_at) AS gated,
        arg_max(downloads, said_at) AS downloads,
        max(created_at) AS created_at,
        max(listed_at) AS listed_at,
        min(listed_at) AS first_listed_at,
        arg_max(vllm, said_at) AS vllm,
        arg_max(vllm_version, said_at) AS vllm_version,
        max(said_at) AS said_at,
        -- it has no problem once it was read
        CASE WHEN NOT bool_or(files_hash IS NOT NULL AND problem IS NULL) THEN arg_max(problem, said_at) END AS problem,
        CASE
            WHEN NOT bool_or(files_hash IS NOT NULL AND problem IS NULL) THEN arg_max(problem_message, said_at)
        END AS problem_message
    FROM read_parquet({models}, hive_partitioning = false)
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

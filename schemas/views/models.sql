-- models: one row per model at one revision, merged from all rows of models/ about it. Rows with listed_at are from a
-- hub's catalog (catalog.py). skipped is the reason why a config's catalog leaves a model out: the kind of its problem,
-- or 'unread': its files were not read yet; 'older': another revision counts, the first with the files of the newest;
-- 'adapter', 'gguf' or 'no_weights': by its files; 'remote_code' or 'unknown_architecture': vLLM has no class for it;
-- 'quantized': it is a quantized copy; 'copy': it has the weights of another model, the first created of those that
-- would be collected.
CREATE VIEW models AS
WITH rows_of_models AS (
    SELECT
        *,
        -- rows that no catalog wrote come before rows of a catalog
        coalesce(said_at, '-infinity'::TIMESTAMPTZ) AS time,
        -- a row from the files counts before a refusal, and before a listing
        (problem IS NULL)::INTEGER + (files_hash IS NOT NULL)::INTEGER AS weight
    FROM {models} AS written
    -- What a catalog lists of a forgotten model stays: it is of the hub.
    ANTI JOIN (
        SELECT model
        FROM _standing
        WHERE cell_id IS NULL
            AND run_id IS NULL
            AND model NOT IN (SELECT model FROM _run_cells)
    ) AS forgotten
        ON written.model = forgotten.model
        AND written.listed_at IS NULL
),

merged AS (
    SELECT
        model,
        source,
        revision,
        arg_max(architecture, {'by': weight, 'of_equal': architecture}) AS architecture,
        arg_max(parameters, {'by': weight, 'of_equal': parameters}) AS parameters,
        arg_max(weight_bytes, {'by': weight, 'of_equal': weight_bytes}) AS weight_bytes,
        arg_max(max_length, {'by': weight, 'of_equal': max_length}) AS max_length,
        arg_max(tokenizer_hash, {'by': weight, 'of_equal': tokenizer_hash}) AS tokenizer_hash,
        arg_max(chat_template_hash, {'by': weight, 'of_equal': chat_template_hash}) AS chat_template_hash,
        arg_max(dtype, {'by': weight, 'of_equal': dtype}) AS dtype,
        arg_max(quantization, {'by': weight, 'of_equal': quantization}) AS quantization,
        arg_max(weights, {'by': weight, 'of_equal': weights}) AS weights,
        arg_max(weights_hash, {'by': weight, 'of_equal': weights_hash}) AS weights_hash,
        arg_max(tensors_hash, {'by': weight, 'of_equal': tensors_hash}) AS tensors_hash,
        arg_max(files_hash, {'by': weight, 'of_equal': files_hash}) AS files_hash,
        arg_max(config, {'by': weight, 'of_equal': config}) AS config,
        arg_max(generation_config, {'by': weight, 'of_equal': generation_config}) AS generation_config,
        arg_max(licence, {'by': time, 'of_equal': licence}) AS licence,
        arg_max(library, {'by': time, 'of_equal': library}) AS library,
        arg_max(pipeline_tag, {'by': time, 'of_equal': pipeline_tag}) AS pipeline_tag,
        arg_max(base_model, {'by': weight, 'of_equal': base_model}) AS base_model,
        arg_max(base_relation, {'by': weight, 'of_equal': base_relation}) AS base_relation,
        arg_max(gated, {'by': time, 'of_equal': gated}) AS gated,
        arg_max(downloads, {'by': time, 'of_equal': downloads}) AS downloads,
        max(created_at) AS created_at,
        max(listed_at) AS listed_at,
        min(listed_at) AS first_listed_at,
        arg_max(vllm, {'by': time, 'of_equal': vllm}) AS vllm,
        arg_max(vllm_version, {'by': time, 'of_equal': vllm_version}) AS vllm_version,
        max(said_at) AS said_at,
        -- a model has no problem once its files were read
        CASE WHEN NOT bool_or(files_hash IS NOT NULL AND problem IS NULL) THEN arg_max(problem, {'by': time, 'of_equal': problem}) END AS problem,
        CASE
            WHEN NOT bool_or(files_hash IS NOT NULL AND problem IS NULL) THEN arg_max(problem_message, {'by': time, 'of_equal': problem_message})
        END AS problem_message
    FROM rows_of_models
    GROUP BY ALL
),

-- A commit to a README does not make another model: of all revisions with the newest files the first counts.
counted AS (
    SELECT
        *,
        listed_at IS NULL AS is_elsewhere,
        arg_max(files_hash, CASE WHEN listed_at IS NOT NULL THEN {'by': listed_at, 'of_equal': files_hash} END) OVER of_model AS newest_files,
        first_value(revision) OVER (
            PARTITION BY model, source, files_hash
            ORDER BY problem IS NULL DESC, first_listed_at, revision
        ) AS first_revision,
        arg_max(revision, CASE WHEN listed_at IS NOT NULL THEN {'by': listed_at, 'of_equal': revision} END) OVER of_model AS newest_revision
    FROM merged
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

explained AS (
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
FROM explained;

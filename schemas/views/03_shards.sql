-- shards: one row per committed shard file, with what its run wrote into the Parquet metadata. Opens every footer.
-- Seconds are by the wall clock of the host; engine_seconds are those in which the engine worked. Null: not recorded.
CREATE VIEW shards AS
WITH facts AS (
    SELECT file_name AS file, decode(value)::JSON AS facts
    FROM parquet_kv_metadata('{lake}/shards/*/*.parquet')
    WHERE decode(key) = 'shard'
)
SELECT
    listed.cell_id,
    listed.generation,
    listed.first_item,
    listed.last_item,
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
    file
FROM _shard_files AS listed
LEFT JOIN facts USING (file);

-- shards: one row per committed shard, with the metadata that its run wrote into the Parquet footer. A query opens the
-- footer of every shard that no compaction holds yet (in_compaction is false). Shards with nothing but forgotten items are
-- left out.
-- Seconds are by the wall clock of the host; engine_seconds are those in which the engine worked. Null: not recorded.
CREATE VIEW shards AS
WITH open_metadata AS (
    SELECT file_name AS file, decode(value)::JSON AS facts
    FROM {shard_metadata}
    WHERE decode(key) = 'shard'
),

committed AS (
    SELECT cell_id, generation, first_item, last_item, item_set, facts, file, false AS in_compaction
    FROM _shard_files
    LEFT JOIN open_metadata USING (file)
    WHERE NOT is_folded
    UNION ALL
    SELECT
        cell_id,
        generation,
        first_item,
        last_item,
        regexp_extract(file, '-s([0-9a-f]{16})\.parquet$', 1) AS item_set,
        facts::JSON,
        {lake} || '/' || file,
        true
    FROM {folded}
    WHERE part NOT IN ({lost})
)
SELECT
    cell_id,
    generation,
    first_item,
    last_item,
    nullif(item_set, '') AS item_set,
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
FROM committed
ANTI JOIN _retracted
    ON committed.cell_id = _retracted.cell_id
    AND committed.generation <= _retracted.generation
    AND committed.first_item >= _retracted.first_item
    AND committed.last_item <= _retracted.last_item;

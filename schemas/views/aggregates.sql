-- aggregates: one row per metric and filter of a cell, or of a group of tasks for one model: its value over all items,
-- by the task's or group's own aggregation in lm-eval, with lm-eval's standard error. Of several rows one that covers
-- the lake's shards counts, else the newest.
-- value and stderr are null where stale says why: the lake has other shards of the cell than those that the row covers.
-- covers: MD5 of the names of the cell's shards, sorted and joined by commas; of a group, of its cells and their
-- digests as cell_id:digest.
CREATE VIEW aggregates AS
WITH all_shards AS (
    SELECT cell_id, generation, first_item, last_item, item_set
    FROM _shard_files
    UNION
    SELECT cell_id, generation, first_item, last_item, item_set
    FROM _folded
),

-- No value covers items that were forgotten.
shard_names AS (
    SELECT
        all_shards.cell_id,
        format(
            '{}-g{}-{:07d}-{:07d}{}.parquet',
            all_shards.cell_id,
            all_shards.generation,
            all_shards.first_item,
            all_shards.last_item,
            CASE WHEN all_shards.item_set = '' THEN '' ELSE '-s' || all_shards.item_set END
        ) AS name
    FROM all_shards
    ANTI JOIN _retracted
        ON all_shards.cell_id = _retracted.cell_id
        AND all_shards.generation <= _retracted.generation
        AND all_shards.first_item <= _retracted.last_item
        AND all_shards.last_item >= _retracted.first_item
),

covered AS (
    SELECT cell_id, md5(string_agg(name, ',' ORDER BY name)) AS digest
    FROM shard_names
    GROUP BY cell_id
),

of_members AS (
    SELECT members, md5(string_agg(cell_id || ':' || coalesce(digest, ''), ',' ORDER BY cell_id)) AS digest
    FROM (SELECT members, unnest(members) AS cell_id FROM (SELECT DISTINCT members FROM {aggregates} WHERE is_group))
    LEFT JOIN covered USING (cell_id)
    GROUP BY members
),

present AS (
    SELECT cell_id, NULL::VARCHAR[] AS members, digest FROM covered
    UNION ALL
    SELECT NULL AS cell_id, members, digest FROM of_members
),

chosen AS (
    SELECT written.*, present.digest
    FROM {aggregates} AS written
    LEFT JOIN present
        ON written.cell_id IS NOT DISTINCT FROM present.cell_id
        AND written.members IS NOT DISTINCT FROM present.members
    WHERE written.judge_id {of_shown_judge} AND coalesce(written.cell_id, written.members[1]) IN (SELECT cell_id FROM cells)
    QUALIFY row_number() OVER (
        PARTITION BY is_group, task, model, written.cell_id, written.members, metric, filter
        ORDER BY coalesce(covers = digest, false) DESC, computed_at DESC, covers
    ) = 1
)

SELECT
    * EXCLUDE (digest) REPLACE (
        CASE WHEN covers = digest THEN value END AS value,
        CASE WHEN covers = digest THEN stderr END AS stderr
    ),
    CASE
        WHEN digest IS NULL THEN 'the lake has no shards of it'
        WHEN covers <> digest THEN 'the lake has other shards than it covers'
    END AS stale
FROM chosen;

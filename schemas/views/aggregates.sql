-- aggregates: one row per metric and filter of a cell, or of a group of tasks for one model: its value over all items,
-- by the task's or group's own aggregation in lm-eval, with lm-eval's standard error. Of several rows the newest counts.
-- value and stderr are null where stale says why: the lake has other shards of the cell than those that the row covers.
-- covers: MD5 of the names of the cell's shards, sorted and joined by commas; of a group, of its cells and their
-- digests as cell_id:digest.
CREATE VIEW aggregates AS
WITH shard_names AS (
    SELECT cell_id, parse_filename(file) AS name
    FROM _shard_files
    UNION
    SELECT cell_id, format('{}-g{}-{:07d}-{:07d}.parquet', cell_id, generation, first_item, last_item) AS name
    FROM _folded
),

covered AS (
    SELECT cell_id, md5(string_agg(name, ',' ORDER BY name)) AS digest
    FROM shard_names
    GROUP BY cell_id
),

newest AS (
    SELECT *
    FROM {aggregates}
    QUALIFY row_number() OVER (
        PARTITION BY is_group, task, model, cell_id, members, metric, filter ORDER BY computed_at DESC, covers
    ) = 1
),

of_members AS (
    SELECT members, md5(string_agg(cell_id || ':' || coalesce(digest, ''), ',' ORDER BY cell_id)) AS digest
    FROM (SELECT members, unnest(members) AS cell_id FROM (SELECT DISTINCT members FROM newest WHERE is_group))
    LEFT JOIN covered USING (cell_id)
    GROUP BY members
)

SELECT
    newest.* REPLACE (
        CASE WHEN covers = present.digest THEN value END AS value,
        CASE WHEN covers = present.digest THEN stderr END AS stderr
    ),
    CASE
        WHEN present.digest IS NULL THEN 'the lake has no shards of it'
        WHEN covers <> present.digest THEN 'the lake has other shards than it covers'
    END AS stale
FROM newest
LEFT JOIN (
    SELECT cell_id, NULL::VARCHAR[] AS members, digest FROM covered
    UNION ALL
    SELECT NULL AS cell_id, members, digest FROM of_members
) AS present
    ON newest.cell_id IS NOT DISTINCT FROM present.cell_id AND newest.members IS NOT DISTINCT FROM present.members
WHERE coalesce(newest.cell_id, newest.members[1]) IN (SELECT cell_id FROM cells);

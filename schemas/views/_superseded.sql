-- _superseded: one row per range of items that a shard file holds but does not own. Empty in most lakes. A compaction
-- goes before any file. Within a generation the file that sorts first by name owns an overlap, so a file owns the items
-- beyond the last item of all files before it. Between generations the higher one owns all items of its files.
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

-- _superseded: one row per range of items that a shard file holds but does not own. Empty in most lakes. Within a
-- generation the shard that sorts first by name owns an overlap (_owned, _taken). Between generations the higher one owns all
-- items of its shards. Items that a retraction names are owned by no shard of their generation.
CREATE VIEW _superseded AS
WITH files AS MATERIALIZED (
    SELECT * FROM _shard_files WHERE NOT is_folded
)

SELECT file, file_first_item AS first_item, first_item - 1 AS last_item
FROM _owned
WHERE first_item > file_first_item
UNION ALL
SELECT file, item AS first_item, item AS last_item
FROM _taken
UNION ALL
SELECT
    older.file,
    coalesce(listed.item, newer.first_item) AS first_item,
    coalesce(listed.item, newer.last_item) AS last_item
FROM files AS older
INNER JOIN files AS newer
    ON older.cell_id = newer.cell_id
    AND older.generation < newer.generation
    AND older.first_item <= newer.last_item
    AND older.last_item >= newer.first_item
LEFT JOIN _item_sets AS listed
    ON newer.item_set = listed.item_set
    AND listed.item BETWEEN newer.first_item AND newer.last_item
WHERE newer.item_set = '' OR listed.item IS NOT NULL
UNION ALL
SELECT
    files.file,
    coalesce(listed.item, _folded.first_item) AS first_item,
    coalesce(listed.item, _folded.last_item) AS last_item
FROM files
INNER JOIN _folded
    ON files.cell_id = _folded.cell_id
    AND files.generation < _folded.generation
    AND files.first_item <= _folded.last_item
    AND files.last_item >= _folded.first_item
LEFT JOIN _item_sets AS listed
    ON _folded.item_set = listed.item_set
    AND listed.item BETWEEN _folded.first_item AND _folded.last_item
WHERE _folded.item_set = '' OR listed.item IS NOT NULL
UNION ALL
SELECT files.file, _retracted.first_item, _retracted.last_item
FROM files
INNER JOIN _retracted
    ON files.cell_id = _retracted.cell_id
    AND files.generation <= _retracted.generation
    AND files.first_item <= _retracted.last_item
    AND files.last_item >= _retracted.first_item
UNION ALL
SELECT file, first_item, last_item
FROM _shard_files
WHERE is_folded;

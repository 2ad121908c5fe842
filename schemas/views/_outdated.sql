-- _outdated: one row per range of a cell's items that a compaction holds and that a shard file owns in its place: rows
-- below this generation are replaced. Those are rows of a lower generation than the file's, and where the file came
-- later but sorts before the folded shard, those of its own: then generation is the next one. So it is for rows that a
-- retraction names. Empty in most lakes.
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
WHERE NOT newer.is_folded
UNION
SELECT
    _folded.part,
    _folded.cell_id,
    _owned.generation + 1 AS generation,
    _owned.first_item,
    _owned.last_item
FROM _folded
INNER JOIN _owned
    ON _folded.cell_id = _owned.cell_id
    AND _folded.generation = _owned.generation
    AND _folded.first_item <= _owned.last_item
    AND _folded.last_item >= _owned.first_item
WHERE _owned.first_item <= _owned.last_item
UNION
SELECT
    _folded.part,
    _folded.cell_id,
    _retracted.generation + 1 AS generation,
    _retracted.first_item,
    _retracted.last_item
FROM _folded
INNER JOIN _retracted
    ON _folded.cell_id = _retracted.cell_id
    AND _folded.generation <= _retracted.generation
    AND _folded.first_item <= _retracted.last_item
    AND _folded.last_item >= _retracted.first_item;

-- _outdated: one row per range of a cell's items that a compaction holds and that a shard file of a higher generation
-- holds, too. Empty in most lakes.
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

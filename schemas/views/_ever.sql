-- _ever: one row per shard that was ever committed, of the cells with a shard file that no compaction holds: such files,
-- and the shards of a compaction, which have a part in place of a file.
CREATE VIEW _ever AS
WITH open_files AS (
    SELECT file, NULL::VARCHAR AS part, cell_id, generation, first_item, last_item, item_set
    FROM _shard_files
    WHERE NOT is_folded
)

FROM open_files
UNION ALL
SELECT NULL AS file, part, cell_id, generation, first_item, last_item, item_set
FROM _folded
SEMI JOIN open_files USING (cell_id);

-- _shard_files: one row per committed shard file, from its name alone: no file is opened. Other files (schema.parquet,
-- temporary files) are left out. is_folded: whether the newest compaction holds its rows.
-- item_set: the list of a sparse shard, '' for others.
CREATE VIEW _shard_files AS
WITH listed AS (
    SELECT
        file,
        regexp_extract(
            file,
            '(?:^|/)([0-9a-fi][0-9a-f]{15})-g([0-9]{1,6})-([0-9]{7})-([0-9]{7})(?:-s([0-9a-f]{16}))?\.parquet$',
            ['cell_id', 'generation', 'first_item', 'last_item', 'item_set']
        ) AS name
    FROM {shard_names}
),

shard_files AS (
    SELECT
        file,
        name.cell_id AS cell_id,
        name.generation::INTEGER AS generation,
        name.first_item::INTEGER AS first_item,
        name.last_item::INTEGER AS last_item,
        name.item_set AS item_set
    FROM listed
    WHERE name.cell_id <> ''
)

SELECT shard_files.*, _folded.part IS NOT NULL AS is_folded
FROM shard_files
LEFT JOIN _folded USING (cell_id, generation, first_item, last_item, item_set);

-- _folded: one row per shard that the newest compaction holds, with the place of its rows. Empty before the first
-- compaction. item_set: the list of a sparse shard, '' for others.
CREATE VIEW _folded AS
SELECT
    cell_id,
    generation,
    first_item,
    last_item,
    regexp_extract(file, '-s([0-9a-f]{16})\.parquet$', 1) AS item_set,
    part,
    place
FROM {folded}
WHERE part NOT IN ({lost});

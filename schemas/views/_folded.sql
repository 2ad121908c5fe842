-- _folded: one row per shard that the newest compaction holds: where its rows are now. Empty before the first one.
CREATE VIEW _folded AS
SELECT cell_id, generation, first_item, last_item, part, place
FROM {folded}
WHERE part NOT IN ({lost});

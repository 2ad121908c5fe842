-- _folded: one row per shard that the newest compaction holds, with the place of its rows. Empty before the first
-- compaction.
CREATE VIEW _folded AS
SELECT cell_id, generation, first_item, last_item, part, place
FROM {folded}
WHERE part NOT IN ({lost});

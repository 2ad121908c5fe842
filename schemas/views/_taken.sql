-- _taken: one row per item of a shard file that no compaction holds, which a sparse shard of its generation owns in its
-- place, because that one sorts first by name.
CREATE VIEW _taken AS
SELECT DISTINCT later_file AS file, item
FROM _shared_items
WHERE later_file IS NOT NULL AND earlier_set <> '';

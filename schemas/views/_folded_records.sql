-- _folded_records: one row per item, filter and repeat of a cell that the newest compaction holds and no shard file has
-- replaced since, with the columns of its cell that the matrix shows.
CREATE VIEW _folded_records AS
SELECT *
FROM {primary_records}
UNION ALL
SELECT *
FROM _folded_others;

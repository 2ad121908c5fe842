-- _folded_records: one row per item, filter and repeat of a cell that the newest compaction holds and no shard file has
-- replaced since, with what the matrix wants to know of its cell.
CREATE VIEW _folded_records AS
SELECT *
FROM read_parquet({primary_records}, hive_partitioning = false)
UNION ALL
SELECT *
FROM read_parquet({mixed_records}, hive_partitioning = false)
UNION ALL
-- Parts of which some items are outdated: apart, so that all others are read without a join.
SELECT part.*
FROM read_parquet({outdated_records}, hive_partitioning = false) AS part
ANTI JOIN _outdated
    ON part.cell_id = _outdated.cell_id
    AND part.generation < _outdated.generation
    AND part.item BETWEEN _outdated.first_item AND _outdated.last_item;

-- _rows: one row per item, filter and repeat of a cell, all columns, from the one shard file that owns the item.
CREATE VIEW _rows AS
SELECT stored.*
FROM read_parquet('{lake}/shards/**/*.parquet', hive_partitioning = false, filename = true) AS stored
ANTI JOIN _superseded
    ON stored.filename = _superseded.file
    AND stored.item BETWEEN _superseded.first_item AND _superseded.last_item;

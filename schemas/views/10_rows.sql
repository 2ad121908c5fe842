-- _rows: one row per item, filter and repeat of a cell, all columns, from the one shard file that owns the item.
CREATE VIEW _rows AS
SELECT
    stored.*,
    TRY_CAST(regexp_extract(stored.filename, '-g([0-9]{1,6})-[0-9-]+\.parquet$', 1) AS INTEGER) AS generation
FROM read_parquet(
    ['{lake}/shards/schema/schema.parquet', '{lake}/shards/*/*.parquet'],
    hive_partitioning = false,
    filename = true
) AS stored
ANTI JOIN _superseded
    ON stored.filename = _superseded.file
    AND stored.item BETWEEN _superseded.first_item AND _superseded.last_item
-- Only what is named as a shard, and of it what its name promises: a copy that somebody left beside one, or gave another
-- name, must not double its rows. Decided per file.
WHERE
    regexp_matches(stored.filename, '(?:^|/)[0-9a-f]{16}-g[0-9]{1,6}-[0-9]{7}-[0-9]{7}\.parquet$')
    AND stored.cell_id = regexp_extract(stored.filename, '([0-9a-f]{16})-g[0-9]{1,6}-[0-9-]+\.parquet$', 1)
    AND stored.item
    BETWEEN TRY_CAST(regexp_extract(stored.filename, '-([0-9]{7})-[0-9]{7}\.parquet$', 1) AS INTEGER)
    AND TRY_CAST(regexp_extract(stored.filename, '-([0-9]{7})\.parquet$', 1) AS INTEGER);

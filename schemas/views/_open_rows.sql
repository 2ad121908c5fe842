-- _open_rows: one row per item, filter and repeat of a cell that no compaction holds, with all columns, from the shard
-- file that owns the item.
CREATE VIEW _open_rows AS
SELECT _stored.* EXCLUDE (filename)
FROM _stored
ANTI JOIN _superseded
    ON _stored.filename = _superseded.file
    AND _stored.item BETWEEN _superseded.first_item AND _superseded.last_item;

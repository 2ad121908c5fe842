-- _open_rows: one row per item, filter and repeat of a cell, all columns, from the one shard file that owns the item,
-- where no compaction holds it.
CREATE VIEW _open_rows AS
SELECT _stored.* EXCLUDE (filename)
FROM _stored
ANTI JOIN _superseded
    ON _stored.filename = _superseded.file
    AND _stored.item BETWEEN _superseded.first_item AND _superseded.last_item;

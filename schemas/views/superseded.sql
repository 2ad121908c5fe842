-- superseded: one row per item, filter and repeat of a cell that was collected again: the rows of an older generation,
-- or of a shard that overlaps another. The views records, responses and matrix leave these rows out. Forgotten rows are
-- not here either.
CREATE VIEW superseded AS
WITH older AS (
    SELECT _stored.* EXCLUDE (filename)
    FROM _stored
    SEMI JOIN _superseded
        ON _stored.filename = _superseded.file
        AND _stored.item BETWEEN _superseded.first_item AND _superseded.last_item
    -- A compaction does not supersede the files that it holds.
    ANTI JOIN (SELECT file FROM _shard_files WHERE is_folded) AS folded_files
        ON _stored.filename = folded_files.file
    UNION ALL BY NAME
    SELECT part.* EXCLUDE ({of_cell}, is_primary, place), answers.* EXCLUDE ({key}, generation)
    FROM {outdated_records} AS part
    SEMI JOIN _outdated
        ON part.cell_id = _outdated.cell_id
        AND part.generation < _outdated.generation
        AND part.item BETWEEN _outdated.first_item AND _outdated.last_item
    LEFT JOIN {responses} AS answers
        ON part.cell_id = answers.cell_id
        AND part.item = answers.item
        AND part.filter = answers.filter
        AND part.repeat = answers.repeat
        AND part.generation = answers.generation
    UNION ALL BY NAME
    SELECT *
    FROM _older
)
SELECT {key}, generation, {judged}, {answers}
FROM older
ANTI JOIN _retracted
    ON older.cell_id = _retracted.cell_id
    AND older.generation <= _retracted.generation
    AND older.item BETWEEN _retracted.first_item AND _retracted.last_item;

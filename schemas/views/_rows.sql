-- _rows: one row per item, filter and repeat of a cell, as it is stored. Does not read the columns with answers.
CREATE VIEW _rows AS
SELECT *
FROM _open_verdicts
UNION ALL BY NAME
SELECT * EXCLUDE ({of_cell}, is_primary, place)
FROM _folded_records;

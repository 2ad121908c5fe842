-- records: one row per item, filter and repeat of a cell. Does not read the columns with answers.
CREATE VIEW records AS
WITH rows_by_name AS (
    SELECT * EXCLUDE ({answers})
    FROM _open_rows
    UNION ALL BY NAME
    SELECT * EXCLUDE ({of_cell}, is_primary, place)
    FROM _folded_records
)
SELECT {key}, {verdicts}, generation
FROM rows_by_name;

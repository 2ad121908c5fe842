-- cells: one row per cell, as the newest run that planned it describes it.
-- planned_items and generation are the largest of all runs: a later run with a smaller limit takes nothing away.
CREATE VIEW cells AS
SELECT *
FROM _cell_rows;

-- cells: one row per cell, as the newest run that planned it describes it.
-- planned_items and generation are the most that any run asked for: a later run with a smaller limit takes nothing away.
CREATE VIEW cells AS
SELECT *
FROM _cell_facts;

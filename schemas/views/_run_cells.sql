-- _run_cells: one row per planned cell of one run, for the included cells: collected, imported or all. Forgotten cells and
-- runs are left out.
CREATE VIEW _run_cells AS
SELECT *
FROM {runs} AS planned
ANTI JOIN _retracted
    ON planned.cell_id = _retracted.cell_id
    AND planned.generation <= _retracted.generation
    AND _retracted.first_item = 0
    AND _retracted.last_item = 2147483647
ANTI JOIN (SELECT run_id FROM _standing WHERE run_id IS NOT NULL) AS forgotten
    ON planned.run_id = forgotten.run_id
WHERE {included};

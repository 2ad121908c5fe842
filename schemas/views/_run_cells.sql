-- _run_cells: one row per planned cell of one run, of the cells that are asked for: collected, imported or all.
CREATE VIEW _run_cells AS
SELECT *
FROM {runs}
WHERE {included};

-- _run_cells: one row per planned cell of one run, for the included cells: collected, imported or all.
CREATE VIEW _run_cells AS
SELECT *
FROM {runs}
WHERE {included};

-- _run_cells: one row per planned cell of one run.
CREATE VIEW _run_cells AS
SELECT *
FROM read_parquet({runs}, hive_partitioning = false);

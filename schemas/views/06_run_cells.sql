-- _run_cells: one row per planned cell of one run.
CREATE VIEW _run_cells AS
SELECT *
FROM read_parquet(
    ['{lake}/runs/schema.parquet', '{lake}/runs/*.parquet'],
    hive_partitioning = false
);

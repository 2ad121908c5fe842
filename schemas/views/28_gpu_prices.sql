-- gpu_prices: one row per accelerator, provider and day from which the price holds; of two for the same day the later.
CREATE VIEW gpu_prices AS
SELECT *
FROM read_parquet({gpu_prices}, hive_partitioning = false)
QUALIFY row_number() OVER (PARTITION BY accelerator, provider, valid_from ORDER BY added_at DESC, source) = 1;

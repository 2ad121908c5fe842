-- gpu_prices: one row per accelerator (whatever the case), provider and first day of the price; of two entries for the
-- same day the later one.
CREATE VIEW gpu_prices AS
SELECT *
FROM {gpu_prices}
QUALIFY row_number() OVER (
    PARTITION BY lower(accelerator), provider, valid_from ORDER BY added_at DESC, source, accelerator, usd_per_gpu_hour
) = 1;

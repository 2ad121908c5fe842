-- gpu_prices: one row per accelerator (in any case of letters), provider and day from which the price holds; of two for the same day the later.
CREATE VIEW gpu_prices AS
SELECT *
FROM {gpu_prices}
QUALIFY row_number() OVER (
    PARTITION BY lower(accelerator), provider, valid_from ORDER BY added_at DESC, source, accelerator
) = 1;

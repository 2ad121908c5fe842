-- prices: one row per model or tier of sizes (in any case of letters), provider and day from which the price holds; of
-- two that were put into the lake for the same day the later. USD per million tokens. Put in by prices.py.
CREATE VIEW prices AS
SELECT *
FROM {prices}
QUALIFY row_number() OVER (
    PARTITION BY lower(model), provider, over_parameters, to_parameters, valid_from
    ORDER BY added_at DESC, source, model
) = 1;

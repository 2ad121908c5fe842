-- prices: one row per model or tier of sizes (whatever the case), provider and first day of the price, in USD per
-- million tokens; of two entries for the same day the later one. prices.py adds them.
CREATE VIEW prices AS
SELECT *
FROM {prices}
QUALIFY row_number() OVER (
    PARTITION BY lower(model), provider, over_parameters, to_parameters, valid_from
    ORDER BY
        added_at DESC,
        source,
        model,
        usd_per_million_prompt,
        usd_per_million_completion,
        usd_per_million_cached,
        usd_per_million_cache_write,
        usd_per_million_reasoning,
        usd_per_million_batch_prompt,
        usd_per_million_batch_completion,
        usd_per_request
) = 1;

-- _gpu_rates: one row per name of a GPU, in lower case, that has a price: by its own entry in gpu_prices or the entry
-- that price_names gives it. The newest price up to prices_on counts (as in model_prices), and the cheapest provider.
CREATE VIEW _gpu_rates AS
WITH valid AS (
    SELECT *
    FROM gpu_prices
    WHERE valid_from <= coalesce(CAST(getvariable('prices_on') AS DATE), current_date)
    QUALIFY row_number() OVER (PARTITION BY lower(accelerator), provider ORDER BY valid_from DESC) = 1
),

named AS (
    SELECT lower(name) AS name, lower(price_name) AS price_name, provider
    FROM price_names
    UNION ALL
    SELECT DISTINCT lower(accelerator), lower(accelerator), NULL
    FROM valid
    WHERE lower(accelerator) NOT IN (SELECT lower(name) FROM price_names)
)

SELECT named.name, valid.accelerator, valid.provider, valid.usd_per_gpu_hour
FROM named
INNER JOIN valid
    ON lower(valid.accelerator) = named.price_name
    AND valid.provider = coalesce(named.provider, valid.provider)
QUALIFY row_number() OVER (PARTITION BY named.name ORDER BY usd_per_gpu_hour, valid.provider) = 1;

-- collection_costs: one row per committed shard that an engine worked for: what collecting it cost, not what it would
-- cost to ask again. usd: engine_seconds × gpus × the newest price of an hour of its GPU (gpu_prices, by its own name or the
-- one that price_names gives it; the cheapest provider's) / 3600; null without a GPU or a price. prices_on as in model_prices.
CREATE VIEW collection_costs AS
WITH valid AS (
    SELECT *
    FROM gpu_prices
    WHERE valid_from <= coalesce(CAST(getvariable('prices_on') AS DATE), DATE '9999-12-31')
    QUALIFY row_number() OVER (PARTITION BY lower(accelerator), provider ORDER BY valid_from DESC) = 1
),

gpus AS (
    SELECT DISTINCT gpu
    FROM shards
    WHERE gpu IS NOT NULL
),

priced AS (
    SELECT gpu, accelerator, valid.provider, usd_per_gpu_hour
    FROM gpus
    LEFT JOIN price_names ON lower(gpus.gpu) = lower(price_names.name)
    INNER JOIN valid
        ON lower(valid.accelerator) = lower(CASE WHEN price_names.name IS NULL THEN gpu ELSE price_name END)
        AND valid.provider = coalesce(price_names.provider, valid.provider)
    QUALIFY row_number() OVER (PARTITION BY gpu ORDER BY usd_per_gpu_hour, valid.provider) = 1
),

worked AS (
    SELECT *, coalesce(TRY_CAST(json_extract_string(facts, '$.gpus') AS DOUBLE), 1) AS gpus
    FROM shards
    WHERE engine_seconds IS NOT NULL
)

SELECT
    worked.cell_id,
    worked.generation,
    worked.first_item,
    worked.last_item,
    worked.run_id,
    worked.gpu,
    worked.gpus,
    worked.engine_seconds,
    worked.load_seconds,
    priced.accelerator,
    priced.provider,
    priced.usd_per_gpu_hour,
    worked.engine_seconds * worked.gpus * priced.usd_per_gpu_hour / 3600 AS usd
FROM worked
LEFT JOIN priced USING (gpu);

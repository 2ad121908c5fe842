-- collection_costs: one row per committed shard that an engine worked for: the cost of collecting it, not of asking
-- again. usd: (engine_seconds + load_seconds) × gpus × the newest price of an hour of its GPU / 3600. The price is that
-- of the device's name (gpu_prices, or price_names and these; the cheapest provider), else of its class; null without a
-- GPU or a price. Engines that died left no shard, so they are not counted. prices_on works as in model_prices.
CREATE VIEW collection_costs AS
WITH worked AS (
    SELECT
        *,
        coalesce(TRY_CAST(json_extract_string(facts, '$.gpus') AS DOUBLE), 1) AS gpus,
        json_extract_string(facts, '$.gpu_class') AS gpu_class
    FROM shards
    WHERE engine_seconds IS NOT NULL
),

gpus AS (
    SELECT DISTINCT gpu, gpu_class
    FROM worked
),

priced AS (
    SELECT gpus.gpu, gpus.gpu_class, rates.accelerator, rates.provider, rates.usd_per_gpu_hour
    FROM gpus
    INNER JOIN _gpu_rates AS rates ON rates.name IN (lower(gpus.gpu), lower(gpus.gpu_class))
    QUALIFY row_number() OVER (
        PARTITION BY gpus.gpu, gpus.gpu_class
        ORDER BY CASE WHEN rates.name = lower(gpus.gpu) THEN 0 ELSE 1 END
    ) = 1
)

SELECT
    worked.cell_id,
    worked.generation,
    worked.first_item,
    worked.last_item,
    worked.run_id,
    worked.gpu,
    worked.gpu_class,
    worked.gpus,
    worked.engine_seconds,
    worked.load_seconds,
    priced.accelerator,
    priced.provider,
    priced.usd_per_gpu_hour,
    (worked.engine_seconds + coalesce(worked.load_seconds, 0)) * worked.gpus * priced.usd_per_gpu_hour / 3600 AS usd
FROM worked
LEFT JOIN priced
    ON worked.gpu IS NOT DISTINCT FROM priced.gpu AND worked.gpu_class IS NOT DISTINCT FROM priced.gpu_class;

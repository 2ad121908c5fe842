-- costs: one row per row of the matrix: what a router's user pays for the answer. USD.
-- serving_usd: (prompt_tokens × its price + completion_tokens × its price) / 1,000,000 + the price per request, by
-- model_prices. Prompt tokens that a host had cached cost what it asks for these, where an imported record and its price
-- tell both; an engine's own prefix cache saves a router's user nothing. stated_usd: what an imported record's source
-- says. usd: serving_usd, else stated_usd; usd_from says which ('price' or 'stated').
-- Three that must not be mixed: unknown = 'unpriced' (tokens, but no price), 'untokened' (no token counts), and a
-- serving_usd of 0, which is a price of nothing. unknown says why serving_usd is null.
CREATE VIEW costs AS
WITH charged AS (
    SELECT
        matrix.*,
        _serving_usd(
            prompt_tokens,
            cached_tokens,
            completion_tokens,
            usd_per_million_prompt,
            CASE WHEN imported_from IS NOT NULL THEN usd_per_million_cached END,
            usd_per_million_completion,
            usd_per_request
        ) AS serving_usd,
        basis,
        price_model,
        provider
    FROM matrix
    INNER JOIN model_prices USING (model)
)

SELECT
    task,
    items_digest,
    item,
    item_hash,
    model,
    prompting,
    dtype,
    quantization,
    metric,
    imported_from,
    cell_id,
    score,
    correct,
    failure,
    prompt_tokens,
    completion_tokens,
    latency_s,
    serving_usd,
    stated_usd,
    coalesce(serving_usd, stated_usd) AS usd,
    CASE WHEN serving_usd IS NOT NULL THEN 'price' WHEN stated_usd IS NOT NULL THEN 'stated' END AS usd_from,
    CASE
        WHEN prompt_tokens IS NULL OR completion_tokens IS NULL THEN 'untokened'
        WHEN serving_usd IS NULL THEN 'unpriced'
    END AS unknown,
    basis,
    price_model,
    provider
FROM charged;

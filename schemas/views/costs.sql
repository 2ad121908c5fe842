-- costs: one row per row of the matrix: the price of the answer to a router's user, in USD. serving_usd: (prompt_tokens
-- × its price + completion_tokens × its price) / 1,000,000 + the price per request, by model_prices. Prompt tokens that
-- a host had cached, or wrote into its cache, have prices of their own, if the record counts them and the price is known;
-- an engine's own prefix cache saves a router's user nothing. So have tokens of a thought (reasoning_tokens). An item that was asked several times (repeats) costs all its
-- answers: the prompt, its cached part and the request for each of them. stated_usd: the cost that the source of an
-- imported record states. usd: serving_usd, else stated_usd; usd_from names which ('price' or 'stated'). unknown is the
-- reason for a null in serving_usd. Do not mix three cases: 'unpriced' (tokens, but no price), 'untokened' (no token
-- counts), and a serving_usd of 0, which is a price of zero.
CREATE VIEW costs AS
WITH charged AS (
    SELECT
        matrix.*,
        _serving_usd(
            prompt_tokens,
            cached_tokens,
            cache_write_tokens,
            completion_tokens,
            reasoning_tokens,
            answers,
            usd_per_million_prompt,
            usd_per_million_cached,
            usd_per_million_cache_write,
            usd_per_million_completion,
            usd_per_million_reasoning,
            usd_per_request
        ) AS serving_usd,
        basis,
        price_model,
        provider
    FROM matrix
    INNER JOIN _cell_prices USING (cell_id)
    LEFT JOIN _repeats USING (cell_id, item)
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
    outcome,
    prompt_tokens,
    completion_tokens,
    reasoning_tokens,
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

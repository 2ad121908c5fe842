-- _serving_usd: the cost of an answer in USD, by prices in USD per million tokens and per request; null if a count or a
-- price is unknown. The cached_price applies to prompt tokens that a provider had cached; without one they cost as much
-- as the others.
CREATE MACRO _serving_usd(
    prompt_tokens, cached_tokens, completion_tokens, prompt_price, cached_price, completion_price, request_price
) AS (
    (
        CASE
            WHEN cached_price IS NULL OR cached_tokens IS NULL OR cached_tokens > prompt_tokens
                THEN prompt_tokens * prompt_price
            ELSE (prompt_tokens - cached_tokens) * prompt_price + cached_tokens * cached_price
        END
        + completion_tokens * completion_price
    ) / 1000000 + coalesce(request_price, 0)
);

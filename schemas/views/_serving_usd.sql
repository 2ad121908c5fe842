-- _serving_usd: what an answer costs, in USD, by prices in USD per million tokens and per request; null where a count or a
-- price is not known. A cached_price is charged for those prompt tokens that a host had cached; without
-- one they cost what the others do.
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

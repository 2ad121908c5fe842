-- _serving_usd: the cost in USD of the answers to an item, by prices in USD per million tokens and per request; null if a
-- count or a price is unknown. Each of several answers costs its own request and prompt; completion_tokens are those of
-- all of them. answers null: one. The cached_price applies to prompt tokens that a provider had cached; without one they
-- cost as much as the others.
CREATE MACRO _serving_usd(
    prompt_tokens, cached_tokens, completion_tokens, answers, prompt_price, cached_price, completion_price, request_price
) AS (
    (
        CASE
            WHEN cached_price IS NULL OR cached_tokens IS NULL OR cached_tokens > prompt_tokens
                THEN prompt_tokens * prompt_price
            ELSE (prompt_tokens - cached_tokens) * prompt_price + cached_tokens * cached_price
        END * coalesce(answers, 1)
        + completion_tokens * completion_price
    ) / 1000000 + coalesce(request_price, 0) * coalesce(answers, 1)
);

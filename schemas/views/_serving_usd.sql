-- _serving_usd: the cost in USD of the answers to an item, by prices in USD per million tokens and per request; null if a
-- count or a price is unknown. Each of several answers costs its own request and prompt; completion_tokens are those of
-- all of them. answers null: one. The cached_price applies to prompt tokens that a provider had cached; without one they
-- cost as much as the others. So do prompt tokens that were written into the cache, and tokens of a thought.
CREATE MACRO _serving_usd(
    prompt_tokens,
    cached_tokens,
    cache_write_tokens,
    completion_tokens,
    reasoning_tokens,
    answers,
    prompt_price,
    cached_price,
    cache_write_price,
    completion_price,
    reasoning_price,
    request_price
) AS (
    -- Most answers were asked once and count no such tokens: the same sum, without the terms that are 0.
    CASE
        WHEN coalesce(cached_tokens, cache_write_tokens, reasoning_tokens, answers) IS NULL
            THEN (prompt_tokens * prompt_price + completion_tokens * completion_price) / 1000000
                + coalesce(request_price, 0)
        ELSE
            (
                CASE
                    WHEN cached_price IS NULL OR cached_tokens IS NULL OR cached_tokens > prompt_tokens
                        THEN prompt_tokens * prompt_price
                    ELSE (prompt_tokens - cached_tokens) * prompt_price + cached_tokens * cached_price
                END * coalesce(answers, 1)
                + CASE
                    WHEN cache_write_tokens + coalesce(cached_tokens, 0) <= prompt_tokens
                        THEN coalesce(cache_write_tokens * (cache_write_price - prompt_price), 0)
                    ELSE 0
                END * coalesce(answers, 1)
                + completion_tokens * completion_price
                + CASE
                    WHEN reasoning_tokens <= completion_tokens
                        THEN coalesce(reasoning_tokens * (reasoning_price - completion_price), 0)
                    ELSE 0
                END
            ) / 1000000 + coalesce(request_price, 0) * coalesce(answers, 1)
    END
);

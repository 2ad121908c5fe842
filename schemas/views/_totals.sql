-- _totals: one row per cell with at least one collected item: counts and sums over its rows of the matrix.
-- Each outcome of an item is counted; failed are those by our fault. score_answered: mean over the items with outcome ok.
-- cached_share: share of the engine's tokens that came from its prefix cache (an item's choices share their context, so
-- cached_tokens can exceed prompt_tokens, which count it once). Means and sums are over the items with a value.
CREATE VIEW _totals AS
SELECT
    cell_id,
    count(*) AS attempted,
    count(score) AS scored,
    count(*) FILTER (outcome IN ('engine', 'judge', 'store')) AS failed,
    count(*) FILTER (outcome = 'ok') AS ok,
    count(*) FILTER (outcome = 'empty') AS empty,
    count(*) FILTER (outcome = 'truncated') AS truncated,
    count(*) FILTER (outcome = 'overlong') AS overlong,
    count(*) FILTER (outcome = 'nan') AS nan,
    count(*) FILTER (outcome = 'filtered') AS filtered,
    count(*) FILTER (outcome = 'refused') AS refused,
    count(*) FILTER (outcome = 'engine') AS engine,
    count(*) FILTER (outcome = 'judge') AS judge,
    count(*) FILTER (outcome = 'store') AS store,
    avg(score) AS score,
    avg(score) FILTER (outcome = 'ok') AS score_answered,
    -- Null beyond 1e150, because its square overflows: word_perplexity of one long word gets there.
    CASE WHEN max(abs(score)) < 1e150 THEN stddev_samp(CASE WHEN abs(score) < 1e150 THEN score END) END AS deviation,
    bool_and(score IN (0, 1)) FILTER (score IS NOT NULL) AS zero_or_one,
    avg(prompt_tokens) AS mean_prompt_tokens,
    avg(completion_tokens) AS mean_completion_tokens,
    sum(prompt_tokens)::BIGINT AS prompt_tokens,
    sum(completion_tokens)::BIGINT AS completion_tokens,
    sum(engine_tokens)::BIGINT AS engine_tokens,
    sum(cached_tokens)::BIGINT AS cached_tokens,
    sum(cached_tokens) / nullif(sum(engine_tokens) FILTER (cached_tokens IS NOT NULL), 0) AS cached_share,
    avg(latency_s) AS mean_latency_s,
    -- Rows with token counts, and the sums by price: the cost of a cell is linear in these.
    count(*) FILTER (prompt_tokens IS NOT NULL AND completion_tokens IS NOT NULL) AS tokened,
    sum(prompt_tokens) FILTER (completion_tokens IS NOT NULL)::BIGINT AS charged_prompt,
    sum(completion_tokens) FILTER (prompt_tokens IS NOT NULL)::BIGINT AS charged_completion,
    sum(cached_tokens) FILTER (
        imported_from IS NOT NULL AND cached_tokens <= prompt_tokens AND completion_tokens IS NOT NULL
    )::BIGINT AS charged_cached,
    count(stated_usd) AS stated,
    sum(stated_usd) AS stated_usd,
    count(stated_usd) FILTER (prompt_tokens IS NULL OR completion_tokens IS NULL) AS stated_untokened,
    sum(stated_usd) FILTER (prompt_tokens IS NULL OR completion_tokens IS NULL) AS stated_untokened_usd
FROM matrix
GROUP BY cell_id;

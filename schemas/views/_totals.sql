-- _totals: one row per cell with at least one collected item: counts and sums over its rows of the matrix.
-- Each outcome of an item is counted; failed are those by our fault. score_answered: mean over the items with outcome ok.
-- cached_share: share of the engine's tokens that came from its prefix cache (an item's choices share their context, so
-- cached_tokens can exceed prompt_tokens, which count it once). Means and sums are over the items with a value, and equal
-- for the same records in whatever order they come (macro _units). deviation: sample standard deviation; skewness: of
-- the scores, 0 where it is lost in rounding or overflows. Both are null below two scored items.
CREATE VIEW _totals AS
WITH asked AS (
    SELECT
        *,
        -- Whole numbers of 1e-12 and 1e-6, whose powers add up exactly. 0 and 1 are counted instead.
        CASE WHEN score NOT IN (0, 1) AND score BETWEEN -1000 AND 1000 THEN CAST(score * 1e12 AS BIGINT) END AS fine,
        fine // 1000000 AS coarse
    FROM matrix
    LEFT JOIN _repeats USING (cell_id, item)
),

sums AS (
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
        _mean(score, 1e12) AS score,
        _mean(CASE WHEN outcome = 'ok' THEN score END, 1e12) AS score_answered,
        min(score) AS lowest,
        max(score) AS highest,
        count(*) FILTER (score = 1) AS ones,
        coalesce(sum(fine), 0) + ones * 1000000000000::HUGEINT AS fine_1,
        coalesce(sum(fine::HUGEINT * fine), 0) + ones * 1000000000000000000000000::HUGEINT AS fine_2,
        coalesce(sum(coarse), 0) + ones * 1000000::HUGEINT AS coarse_1,
        coalesce(sum(coarse * coarse), 0) + ones * 1000000000000::HUGEINT AS coarse_2,
        coalesce(sum((coarse * coarse)::HUGEINT * coarse), 0) + ones * 1000000000000000000::HUGEINT AS coarse_3,
        list(score) FILTER (NOT score BETWEEN -1000 AND 1000) AS far,
        bool_and(score IN (0, 1)) FILTER (score IS NOT NULL) AS zero_or_one,
        avg(prompt_tokens) AS mean_prompt_tokens,
        avg(completion_tokens) AS mean_completion_tokens,
        sum(prompt_tokens)::BIGINT AS prompt_tokens,
        sum(completion_tokens)::BIGINT AS completion_tokens,
        sum(engine_tokens)::BIGINT AS engine_tokens,
        sum(cached_tokens)::BIGINT AS cached_tokens,
        sum(engine_tokens) FILTER (cached_tokens IS NOT NULL)::BIGINT AS cacheable_tokens,
        sum(cached_tokens) FILTER (engine_tokens IS NOT NULL) / nullif(cacheable_tokens, 0) AS cached_share,
        _mean(latency_s, 1e12) AS mean_latency_s,
        count(latency_s) AS timed_items,
        -- Rows with token counts, and the sums by price: the cost of a cell is linear in these.
        count(*) FILTER (prompt_tokens IS NOT NULL AND completion_tokens IS NOT NULL) AS tokened,
        count(*) FILTER (prompt_tokens IS NOT NULL AND completion_tokens IS NOT NULL)
        + coalesce(sum(answers - 1) FILTER (prompt_tokens IS NOT NULL AND completion_tokens IS NOT NULL), 0)::BIGINT
            AS charged_requests,
        sum(prompt_tokens * coalesce(answers, 1)) FILTER (completion_tokens IS NOT NULL)::BIGINT AS charged_prompt,
        sum(completion_tokens) FILTER (prompt_tokens IS NOT NULL)::BIGINT AS charged_completion,
        sum(cached_tokens * coalesce(answers, 1)) FILTER (
            cached_tokens <= prompt_tokens AND completion_tokens IS NOT NULL
        )::BIGINT AS charged_cached,
        sum(cache_write_tokens * coalesce(answers, 1)) FILTER (
            cache_write_tokens + coalesce(cached_tokens, 0) <= prompt_tokens AND completion_tokens IS NOT NULL
        )::BIGINT AS charged_cache_write,
        sum(reasoning_tokens) FILTER (
            reasoning_tokens <= completion_tokens AND prompt_tokens IS NOT NULL
        )::BIGINT AS charged_reasoning,
        count(stated_usd) AS stated,
        _sum(stated_usd, 1e18) AS stated_usd,
        count(stated_usd) FILTER (prompt_tokens IS NULL OR completion_tokens IS NULL) AS stated_untokened,
        _sum(CASE WHEN prompt_tokens IS NULL OR completion_tokens IS NULL THEN stated_usd END, 1e18) AS stated_untokened_usd
    FROM asked
    GROUP BY cell_id
),

-- Sums of powers of the distances from a whole number near the mean: exact up to here.
near AS (
    SELECT
        *,
        scored - coalesce(len(far), 0) AS near,
        fine_1 // nullif(near, 0) AS middle,
        coarse_1 // nullif(near, 0) AS coarse_middle,
        (fine_1 - near * middle)::DOUBLE / near AS off,
        (fine_2 - 2 * middle * fine_1 + near * middle * middle)::DOUBLE AS squares,
        (coarse_1 - near * coarse_middle)::DOUBLE / near AS coarse_off,
        (coarse_2 - 2 * coarse_middle * coarse_1 + near * coarse_middle * coarse_middle)::DOUBLE AS coarse_squares,
        (
            coarse_3 - 3 * coarse_middle * coarse_2 + 3 * coarse_middle * coarse_middle * coarse_1
            - near * coarse_middle * coarse_middle * coarse_middle
        )::DOUBLE AS coarse_cubes
    FROM sums
),

spread AS (
    SELECT
        *,
        CASE
            WHEN scored < 2 OR greatest(abs(lowest), abs(highest)) >= 1e150 THEN NULL -- its square overflows
            WHEN lowest = highest THEN 0
            ELSE sqrt((
                coalesce((squares - near * off * off) / 1e24 + near * pow((middle + off) / 1e12 - score, 2), 0)
                + coalesce(list_sum(list_sort(list_transform(far, lambda x: pow(x - score, 2)))), 0)
            ) / (scored - 1))
        END AS deviation,
        coarse_middle - 1e6 * score AS from_mean
    FROM near
)

SELECT
    * EXCLUDE (
        ones, fine_1, fine_2, coarse_1, coarse_2, coarse_3, far, near, middle, coarse_middle, off, squares,
        coarse_off, coarse_squares, coarse_cubes, from_mean
    ),
    CASE
        WHEN far IS NULL AND deviation > 1e-5
            THEN (coarse_cubes / near - 3 * coarse_off * coarse_squares / near + 2 * pow(coarse_off, 3))
                / pow(1e6 * deviation, 3)
        WHEN far IS NOT NULL AND deviation BETWEEN 1e-5 AND 1e90 -- its cube does not overflow
            THEN (
                coalesce(
                    coarse_cubes + 3 * from_mean * coarse_squares
                    + near * (3 * pow(from_mean, 2) * coarse_off + pow(from_mean, 3)),
                    0
                ) / 1e18
                + list_sum(list_sort(list_transform(far, lambda x: pow(x - score, 3))))
            ) / scored / pow(deviation, 3)
        WHEN deviation IS NOT NULL THEN 0
    END AS skewness
FROM spread;

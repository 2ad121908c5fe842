-- leaderboard: one row per cell with at least one collected item, and per group of tasks and model (is_group). score:
-- mean over its scored items; of a group over its tasks' scores, weighted as the group says. score_answered: mean over
-- the items with outcome ok. value and value_stderr: the metric over all judged items, by lm-eval's own aggregation (view
-- aggregates): a perplexity has no other.
-- rank: by score, else by value, among the cells of the same task, items, prompting and metric that were asked as many
-- items. Only a whole cell has one: every planned item is collected and scored, and none is missing by our fault.
-- stderr: sample standard deviation / sqrt(scored), as lm-eval reports it; null below two scored items.
-- ci_low, ci_high: 95 % interval of the mean score, cut to the range that its metric has, by ci_method:
--   wilson   the range is 0 to 1 and every score is one of both, or all scores are at the same end of the range:
--            Wilson's score interval of p, the share of the way from low to high,
--            (p + z²/2n ± z·sqrt(p(1 − p)/n + z²/4n²)) / (1 + z²/n), E. B. Wilson, JASA 22 (1927) 209
--   bounded  other scores of a metric with a range: Wilson's interval for n / f items, with Student's t for z. f is the
--            scores' variance as a share of p(1 − p), the largest that the range allows:
--            f = (S + b) / ((n − 1)·p(1 − p) + b), at most 1, where S is the sum of squared distances from the mean. b =
--            min(0.0075·(n − 4), 0.05) is for a small sample that shows too little of the range
--   hall     scores of a metric without a range: Student's t interval, corrected for the skewness of the scores by P.
--            Hall, "On the Removal of Skewness by Transformation", JRSS B 54 (1992) 221
-- Null below five items but for wilson, and where all scores are equal and inside the range. Simulated coverage: 92 to
-- 97 % of uniform and beta scores and 92 % of log-normal ones at n = 20 (bench_trust_equal.py). z is the 97.5 %
-- quantile of the standard normal distribution, t that of Student's t with n − 1 degrees of freedom.
-- usd_per_1000: USD for a thousand items, the mean over the usd_items with a known cost (views costs, model_prices).
-- price_basis: how the price was matched; null if only the source states costs.
CREATE VIEW leaderboard AS
WITH ranges AS (
    SELECT
        _totals.*,
        scored AS n,
        deviation / sqrt(scored) AS stderr,
        -- Without a stated range a metric with a threshold above 0 is one in [0, 1], unless a score says otherwise.
        correct_threshold > 0 AND correct_threshold <= 1 AND lowest >= 0 AND highest <= 1 AS in_unit,
        CASE WHEN has_score_range THEN score_low WHEN in_unit THEN 0 END AS low,
        CASE WHEN has_score_range THEN score_high WHEN in_unit THEN 1 END AS high
    FROM _totals
    INNER JOIN cells USING (cell_id)
),

methods AS (
    SELECT
        *,
        CASE
            WHEN high > low AND ((low = 0 AND high = 1 AND zero_or_one) OR (lowest = highest AND lowest IN (low, high)))
                THEN 'wilson'
            WHEN n < 5 OR lowest = highest OR deviation IS NULL THEN NULL
            WHEN high > low THEN 'bounded'
            ELSE 'hall'
        END AS ci_method,
        CASE WHEN ci_method = 'wilson' THEN 1.959963984540054 ELSE _t_quantile(n - 1) END AS t,
        (score - low) / (high - low) AS p,
        least(0.0075 * (n - 4), 0.05) AS b,
        CASE
            WHEN ci_method = 'wilson' THEN 1
            ELSE least(1, ((n - 1) * pow(deviation / (high - low), 2) + b) / ((n - 1) * p * (1 - p) + b))
        END AS f,
        skewness / (3 * sqrt(n)) AS a
    FROM ranges
),

intervals AS (
    SELECT
        *,
        t * t * f / n AS k,
        t * sqrt(greatest(p * (1 - p) * f / n + k * f / (4 * n), 0)) AS half,
        CASE
            WHEN ci_method = 'hall' THEN score - stderr * _unskewed(t, a)
            WHEN ci_method IS NOT NULL THEN low + (high - low) * (p + k / 2 - half) / (1 + k)
        END AS from_score,
        CASE
            WHEN ci_method = 'hall' THEN score - stderr * _unskewed(-t, a)
            WHEN ci_method IS NOT NULL THEN low + (high - low) * (p + k / 2 + half) / (1 + k)
        END AS to_score
    FROM methods
),

estimates AS (
    SELECT
        *,
        -- greatest and least leave a null out, also the interval's. Where all are right, rounding puts Wilson's end a bit
        -- below the score itself.
        CASE
            WHEN ci_method = 'hall' THEN greatest(from_score, low)
            WHEN ci_method IS NOT NULL THEN least(greatest(from_score, low), score)
        END AS ci_low,
        CASE
            WHEN ci_method = 'hall' THEN least(to_score, high)
            WHEN ci_method IS NOT NULL THEN greatest(least(to_score, high), score)
        END AS ci_high
    FROM intervals
),

of_cells AS (
    SELECT
        cells.task,
        false AS is_group,
        cells.model,
        cells.metric,
        coalesce(shown.filter, cells.filter) AS filter,
        estimates.score,
        estimates.stderr,
        estimates.ci_low,
        estimates.ci_high,
        estimates.ci_method,
        estimates.score_answered,
        aggregates.value,
        aggregates.stderr AS value_stderr,
        coalesce(estimates.score, CASE WHEN aggregates.items = estimates.attempted THEN aggregates.value END) AS merit,
        estimates.attempted = cells.planned_items
        AND estimates.failed = 0
        AND estimates.scored IN (0, estimates.attempted) AS is_whole,
        estimates.attempted,
        estimates.scored,
        estimates.failed,
        estimates.ok,
        estimates.empty,
        estimates.truncated,
        estimates.overlong,
        estimates.nan,
        estimates.filtered,
        estimates.refused,
        estimates.engine,
        estimates.judge,
        estimates.store,
        estimates.mean_prompt_tokens,
        estimates.mean_completion_tokens,
        estimates.prompt_tokens,
        estimates.completion_tokens,
        estimates.engine_tokens,
        estimates.cached_tokens,
        estimates.cacheable_tokens,
        estimates.cached_share,
        estimates.mean_latency_s,
        estimates.timed_items,
        1000 * _cell_costs.usd / _cell_costs.usd_items AS usd_per_1000,
        _cell_costs.usd_items,
        _cell_costs.basis AS price_basis,
        cells.num_fewshot,
        cells.chat_template,
        cells.prompting,
        cells.items_digest,
        cells.revision,
        cells.dtype,
        cells.quantization,
        cells.effort,
        cells.max_length,
        cells.higher_is_better,
        cells.imported_from,
        cells.cell_id
    FROM estimates
    INNER JOIN cells USING (cell_id)
    INNER JOIN _cell_costs USING (cell_id)
    -- The metric in cells is the chosen judge's. The filter there is the stored one, by which the matrix reads its rows.
    LEFT JOIN _shown_judges AS shown ON cells.task = shown.task
    LEFT JOIN aggregates
        ON cells.cell_id = aggregates.cell_id
        AND cells.metric = aggregates.metric
        AND coalesce(shown.filter, cells.filter) = aggregates.filter
),

members AS (
    SELECT task, model, prompting, metric, filter, members, unnest(members) AS cell_id
    FROM aggregates
    WHERE is_group
),

of_groups AS (
    SELECT
        aggregates.task,
        true AS is_group,
        aggregates.model,
        aggregates.metric,
        aggregates.filter,
        CASE
            WHEN
                count(of_cells.score) FILTER (
                    of_cells.metric = aggregates.metric AND of_cells.filter = aggregates.filter
                ) < count(*)
                THEN NULL
            WHEN min(aggregates.aggregation) = 'mean of items'
                THEN _sum(of_cells.score * of_cells.attempted, 1e12) / sum(of_cells.attempted)
            ELSE _mean(of_cells.score, 1e12)
        END AS score,
        min(aggregates.value) AS value,
        min(aggregates.stderr) AS value_stderr,
        min(aggregates.items) = sum(of_cells.attempted) AS is_of_all,
        bool_and(coalesce(of_cells.is_whole, false)) AS is_whole,
        sum(of_cells.attempted)::BIGINT AS attempted,
        sum(of_cells.scored)::BIGINT AS scored,
        sum(of_cells.failed)::BIGINT AS failed,
        sum(of_cells.ok)::BIGINT AS ok,
        sum(of_cells.empty)::BIGINT AS empty,
        sum(of_cells.truncated)::BIGINT AS truncated,
        sum(of_cells.overlong)::BIGINT AS overlong,
        sum(of_cells.nan)::BIGINT AS nan,
        sum(of_cells.filtered)::BIGINT AS filtered,
        sum(of_cells.refused)::BIGINT AS refused,
        sum(of_cells.engine)::BIGINT AS engine,
        sum(of_cells.judge)::BIGINT AS judge,
        sum(of_cells.store)::BIGINT AS store,
        sum(of_cells.prompt_tokens)::BIGINT AS prompt_tokens,
        sum(of_cells.completion_tokens)::BIGINT AS completion_tokens,
        sum(of_cells.engine_tokens)::BIGINT AS engine_tokens,
        sum(of_cells.cached_tokens)::BIGINT AS cached_tokens,
        _sum(of_cells.usd_per_1000 * of_cells.usd_items, 1e12) / sum(of_cells.usd_items) AS usd_per_1000,
        sum(of_cells.usd_items)::BIGINT AS usd_items,
        aggregates.prompting,
        CASE WHEN min(of_cells.revision) = max(of_cells.revision) THEN min(of_cells.revision) END AS revision,
        CASE WHEN min(of_cells.dtype) = max(of_cells.dtype) THEN min(of_cells.dtype) END AS dtype,
        CASE WHEN min(of_cells.quantization) = max(of_cells.quantization) THEN min(of_cells.quantization) END AS quantization,
        CASE WHEN min(of_cells.effort) = max(of_cells.effort) THEN min(of_cells.effort) END AS effort,
        CASE WHEN min(of_cells.max_length) = max(of_cells.max_length) THEN min(of_cells.max_length) END AS max_length,
        bool_and(aggregates.higher_is_better) AS higher_is_better
    FROM aggregates
    INNER JOIN members USING (task, model, prompting, metric, filter, members)
    LEFT JOIN of_cells ON members.cell_id = of_cells.cell_id
    WHERE aggregates.is_group
    GROUP BY
        aggregates.task,
        aggregates.model,
        aggregates.prompting,
        aggregates.metric,
        aggregates.filter,
        aggregates.members
),

every AS (
    FROM of_cells
    UNION ALL BY NAME
    SELECT * EXCLUDE (is_of_all), coalesce(score, CASE WHEN is_of_all THEN value END) AS merit FROM of_groups
)

SELECT
    task,
    CASE WHEN is_whole AND merit IS NOT NULL THEN rank() OVER (
        PARTITION BY is_group, task, items_digest, prompting, metric, filter, attempted
        ORDER BY
            is_whole DESC,
            CASE WHEN higher_is_better THEN -merit ELSE merit END NULLS LAST
    ) END AS rank,
    model,
    metric,
    * EXCLUDE (task, model, metric, merit, is_whole)
FROM every;

-- leaderboard: one row per cell with at least one collected item, and per group of tasks and model (is_group). score:
-- mean over its scored items; of a group over its tasks' scores, weighted as the group says. score_answered: mean over
-- the items with outcome ok. value and value_stderr: the metric over all judged items, by lm-eval's own aggregation (view
-- aggregates): a perplexity has no other.
-- rank: by score, else by value, among the cells of the same task, items, prompting and metric that were asked as many
-- items. Only a whole cell has one: every planned item is collected and scored, and none is missing by our fault.
-- stderr: sample standard deviation / sqrt(scored), as lm-eval reports it; null below two scored items.
-- ci_low, ci_high: 95 % interval, by ci_method:
--   wilson  every score is 0 or 1: Wilson's score interval, (p + z²/2n ± z·sqrt(p(1 − p)/n + z²/4n²)) / (1 + z²/n),
--           E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22 (1927) 209-212
--   normal  otherwise: score ± z · stderr, cut to [0, 1] for metrics in that range; null below two scored items
-- with z = 1.959963984540054, the 97.5 % quantile of the standard normal distribution.
-- usd_per_1000: USD for a thousand items, the mean over the usd_items with a known cost (views costs, model_prices).
-- price_basis: how the price was matched; null if only the source states costs.
CREATE VIEW leaderboard AS
WITH estimates AS (
    SELECT
        _totals.*,
        1.959963984540054::DOUBLE AS z,
        deviation / sqrt(scored) AS stderr,
        z * z / nullif(scored, 0) AS zz_n,
        cells.correct_threshold IS NOT NULL AND score BETWEEN 0 AND 1 AS in_unit,
        z * sqrt(greatest(score * (1 - score) + zz_n / 4, 0) / nullif(scored, 0)) AS wilson_half
    FROM _totals
    INNER JOIN cells USING (cell_id)
),

of_cells AS (
    SELECT
        cells.task,
        false AS is_group,
        cells.model,
        cells.metric,
        cells.filter,
        estimates.score,
        estimates.stderr,
        CASE
            WHEN estimates.zero_or_one THEN (estimates.score + estimates.zz_n / 2 - estimates.wilson_half) / (1 + estimates.zz_n)
            WHEN estimates.stderr IS NULL THEN NULL
            WHEN estimates.in_unit THEN greatest(estimates.score - estimates.z * estimates.stderr, 0)
            ELSE estimates.score - estimates.z * estimates.stderr
        END AS ci_low,
        CASE
            WHEN estimates.zero_or_one THEN (estimates.score + estimates.zz_n / 2 + estimates.wilson_half) / (1 + estimates.zz_n)
            WHEN estimates.stderr IS NULL THEN NULL
            WHEN estimates.in_unit THEN least(estimates.score + estimates.z * estimates.stderr, 1)
            ELSE estimates.score + estimates.z * estimates.stderr
        END AS ci_high,
        CASE WHEN estimates.zero_or_one THEN 'wilson' WHEN estimates.stderr IS NOT NULL THEN 'normal' END AS ci_method,
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
        estimates.cached_share,
        estimates.mean_latency_s,
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
        cells.max_length,
        cells.higher_is_better,
        cells.imported_from,
        cells.cell_id
    FROM estimates
    INNER JOIN cells USING (cell_id)
    INNER JOIN _cell_costs USING (cell_id)
    LEFT JOIN aggregates
        ON cells.cell_id = aggregates.cell_id
        AND cells.metric = aggregates.metric
        AND cells.filter = aggregates.filter
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
            WHEN any_value(aggregates.aggregation) = 'mean of items'
                THEN sum(of_cells.score * of_cells.attempted) / sum(of_cells.attempted)
            ELSE avg(of_cells.score)
        END AS score,
        any_value(aggregates.value) AS value,
        any_value(aggregates.stderr) AS value_stderr,
        any_value(aggregates.items) = sum(of_cells.attempted) AS is_of_all,
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
        sum(of_cells.usd_per_1000 * of_cells.usd_items) / sum(of_cells.usd_items) AS usd_per_1000,
        sum(of_cells.usd_items)::BIGINT AS usd_items,
        aggregates.prompting,
        any_value(of_cells.revision) AS revision,
        any_value(of_cells.dtype) AS dtype,
        any_value(of_cells.quantization) AS quantization,
        any_value(of_cells.max_length) AS max_length,
        any_value(aggregates.higher_is_better) AS higher_is_better
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

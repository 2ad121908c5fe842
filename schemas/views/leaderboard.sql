-- leaderboard: one row per cell with at least one collected item. score: mean over its scored items. Cells may differ
-- in their numbers of scored items, so look at the counts and the interval before the rank.
-- rank: by score among the cells of the same task, items, prompting and metric; null without a score.
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
)
SELECT
    cells.task,
    CASE WHEN estimates.score IS NOT NULL THEN rank() OVER (
        PARTITION BY cells.task, cells.items_digest, cells.prompting, cells.metric
        ORDER BY CASE WHEN cells.higher_is_better THEN -estimates.score ELSE estimates.score END NULLS LAST
    ) END AS rank,
    cells.model,
    cells.metric,
    estimates.score,
    estimates.stderr,
    CASE
        WHEN zero_or_one THEN (score + zz_n / 2 - wilson_half) / (1 + zz_n)
        WHEN stderr IS NULL THEN NULL
        WHEN in_unit THEN greatest(score - z * stderr, 0)
        ELSE score - z * stderr
    END AS ci_low,
    CASE
        WHEN zero_or_one THEN (score + zz_n / 2 + wilson_half) / (1 + zz_n)
        WHEN stderr IS NULL THEN NULL
        WHEN in_unit THEN least(score + z * stderr, 1)
        ELSE score + z * stderr
    END AS ci_high,
    CASE WHEN zero_or_one THEN 'wilson' WHEN stderr IS NOT NULL THEN 'normal' END AS ci_method,
    estimates.attempted,
    estimates.scored,
    estimates.unanswered,
    estimates.failed,
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
INNER JOIN _cell_costs USING (cell_id);

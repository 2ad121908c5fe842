-- _cell_costs: one row per cell with at least one collected item: the cost of its answers, and the number of answers
-- with a known cost. Prices are linear, so the sums of tokens give the same as the view costs.
CREATE VIEW _cell_costs AS
SELECT
    cell_id,
    basis,
    attempted,
    tokened,
    CASE WHEN basis IS NULL THEN 0 ELSE tokened END AS priced,
    tokened - priced AS unpriced,
    attempted - tokened AS untokened,
    CASE WHEN basis IS NULL THEN stated ELSE tokened + stated_untokened END AS usd_items,
    CASE
        WHEN usd_items = 0 THEN NULL
        WHEN basis IS NULL THEN stated_usd
        ELSE
            (
                coalesce(charged_prompt, 0) * usd_per_million_prompt
                + coalesce(charged_completion, 0) * usd_per_million_completion
                + coalesce(charged_cached * (usd_per_million_cached - usd_per_million_prompt), 0)
                + coalesce(charged_cache_write * (usd_per_million_cache_write - usd_per_million_prompt), 0)
                + coalesce(charged_reasoning * (usd_per_million_reasoning - usd_per_million_completion), 0)
            ) / 1000000
            + charged_requests * coalesce(usd_per_request, 0)
            + coalesce(stated_untokened_usd, 0)
    END AS usd
FROM _totals
INNER JOIN _cell_prices USING (cell_id);

-- judge_costs: one row per judge that is a model and judged model: the tokens that its verdicts took. They are no part of
-- the answers' tokens and costs. judge_usd: as the judge's endpoint states it, else by the price of the judging model
-- (prices, price_names); null where neither is known for every verdict.
CREATE VIEW judge_costs AS
WITH priced AS (
    SELECT
        coalesce(price_names.name, prices.model) AS model,
        arg_max(usd_per_million_prompt, (valid_from, prices.added_at)) AS usd_per_million_prompt,
        arg_max(usd_per_million_completion, (valid_from, prices.added_at)) AS usd_per_million_completion
    FROM prices
    LEFT JOIN price_names
        ON prices.model = price_names.price_name
        AND (price_names.provider IS NULL OR price_names.provider = prices.provider)
    WHERE valid_from <= current_date AND usd_per_million_prompt IS NOT NULL
    GROUP BY 1
),

charged AS (
    SELECT
        verdicts.*,
        judges.judge,
        judges.model AS judge_model,
        coalesce(
            judge_usd,
            (judge_prompt_tokens * usd_per_million_prompt + judge_completion_tokens * usd_per_million_completion) / 1e6
        ) AS usd
    FROM verdicts
    INNER JOIN judges USING (judge_id)
    LEFT JOIN priced ON judges.model = priced.model
    WHERE judges.kind = 'model'
)

SELECT
    charged.judge,
    charged.judge_id,
    judge_model,
    charged.task,
    cells.model,
    charged.cell_id,
    count(*) AS verdicts,
    count(*) FILTER (charged.score IS NULL) AS unscored,
    sum(judge_prompt_tokens)::BIGINT AS judge_prompt_tokens,
    sum(judge_completion_tokens)::BIGINT AS judge_completion_tokens,
    CASE WHEN count(usd) = count(*) THEN _sum(usd, 1e15) END AS judge_usd
FROM charged
INNER JOIN cells USING (cell_id)
GROUP BY ALL;

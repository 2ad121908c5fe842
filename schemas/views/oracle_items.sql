-- oracle_items: one row per pool (as in oracle) and item with a score from any of its models: the best score, and the
-- least cost of an answer with it. Among the models with the best score the cheapest counts, of those with a known cost
-- (USD, view costs); of equal ones the first by name. If no cost is known, the first by name counts, and usd is null.
-- models_scored < models: some model has no verdict.
CREATE VIEW oracle_items AS
WITH members AS MATERIALIZED (
    FROM _members
),

answers AS (
    SELECT
        pool_number,
        member,
        item,
        score,
        correct,
        -merit_sign * score AS loss,
        coalesce(
            _serving_usd(
                prompt_tokens,
                cached_tokens,
                completion_tokens,
                usd_per_million_prompt,
                usd_per_million_cached,
                usd_per_million_completion,
                usd_per_request
            ),
            stated_usd,
            'infinity'
        ) AS usd
    FROM matrix
    INNER JOIN members USING (cell_id)
),

-- One pass: the least of the structs has the best score, then the least cost; an unknown cost comes last. FILTER,
-- because WHERE score IS NOT NULL took as long as all the rest.
chosen AS (
    SELECT
        pool_number,
        item,
        count(score) AS models_scored,
        count(*) FILTER (score IS NOT NULL AND correct) AS models_correct,
        min(struct_pack(loss := loss, usd := usd, member := member)) FILTER (score IS NOT NULL) AS best
    FROM answers
    GROUP BY pool_number, item
)

SELECT
    members.task,
    chosen.item,
    members.models,
    chosen.models_scored,
    chosen.models_correct,
    -members.merit_sign * best.loss + 0 AS best_score, -- + 0: 0 and not -0
    members.model,
    CASE WHEN best.usd < 'infinity' THEN best.usd END AS usd,
    members.items_digest,
    members.prompting,
    members.dtype,
    members.quantization,
    members.metric,
    members.imported_from,
    members.cell_id,
    members.pool
FROM chosen
INNER JOIN members ON chosen.best.member = members.member;

-- cheapest_correct: one row per pool (as in oracle) and item: the cheapest of the models that are right and have a
-- known cost (USD, view costs); of equal ones the first by name. model null: none is right (models_correct = 0), or no
-- cost of those that are is known. A missing verdict is not a wrong answer: then models_scored < models.
CREATE VIEW cheapest_correct AS
WITH members AS MATERIALIZED (
    FROM _members
),

answers AS (
    SELECT
        pool_number,
        member,
        item,
        correct,
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
            stated_usd
        ) AS usd
    FROM matrix
    INNER JOIN members USING (cell_id)
),

chosen AS (
    SELECT
        pool_number,
        item,
        count(correct) AS models_scored,
        count(*) FILTER (correct) AS models_correct,
        min(struct_pack(usd := usd, member := member)) FILTER (correct AND usd IS NOT NULL) AS best
    FROM answers
    GROUP BY pool_number, item
)

SELECT
    pools.task,
    chosen.item,
    pools.models,
    chosen.models_scored,
    chosen.models_correct,
    members.model,
    best.usd,
    pools.items_digest,
    pools.prompting,
    pools.dtype,
    pools.quantization,
    pools.metric,
    pools.imported_from,
    members.cell_id,
    pools.pool
FROM chosen
INNER JOIN members AS pools ON chosen.pool_number = pools.pool_number AND pools.cell_id = pools.pool
LEFT JOIN members ON chosen.best.member = members.member;

-- cheapest_correct: one row per task and question with a verdict from any candidate of the pool (view oracle): the
-- cheapest of the candidates that are right and have a known cost (USD, view costs); of equal ones the first by name.
-- candidate null: none is right (candidates_correct = 0), or no cost of those that are is known. A missing verdict is not
-- a wrong answer: then candidates_scored < candidates.
CREATE VIEW cheapest_correct AS
WITH members AS MATERIALIZED (
    FROM _members
    WHERE NOT is_all
),

answers AS (
    SELECT
        pool_number,
        member,
        question_number,
        correct,
        coalesce(
            _serving_usd(
                prompt_tokens,
                cached_tokens,
                cache_write_tokens,
                completion_tokens,
                reasoning_tokens,
                answers,
                usd_per_million_prompt,
                usd_per_million_cached,
                usd_per_million_cache_write,
                usd_per_million_completion,
                usd_per_million_reasoning,
                usd_per_request
            ),
            stated_usd
        ) AS usd
    FROM _pool_rows
    INNER JOIN members USING (cell_id)
    LEFT JOIN _repeats USING (cell_id, item)
),

chosen AS (
    SELECT
        pool_number,
        question_number,
        count(correct) AS candidates_scored,
        count(*) FILTER (correct) AS candidates_correct,
        min(struct_pack(usd := usd, member := member)) FILTER (correct AND usd IS NOT NULL) AS best
    FROM answers
    GROUP BY pool_number, question_number
    HAVING count(correct) > 0
),

pools AS (
    SELECT
        pool_number,
        any_value(task) AS task,
        any_value(candidates) AS candidates,
        CASE WHEN min(metric) = max(metric) THEN min(metric) END AS metric
    FROM members
    GROUP BY pool_number
)

SELECT
    pools.task,
    _question_names.question,
    pools.candidates,
    chosen.candidates_scored,
    chosen.candidates_correct,
    members.candidate,
    best.usd,
    pools.metric,
    members.cell_id,
    _question_names.items_digest,
    _question_names.item
FROM chosen
INNER JOIN pools USING (pool_number)
INNER JOIN _question_names USING (question_number)
LEFT JOIN members ON chosen.pool_number = members.pool_number AND chosen.best.member = members.member;

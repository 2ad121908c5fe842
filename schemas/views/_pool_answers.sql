-- _pool_answers: one row per pool, counted question and candidate with a row in the matrix. is_complete: every candidate
-- has a score for it. Such questions count, and with --questions any those that one candidate has a score for.
CREATE VIEW _pool_answers AS
WITH answers AS NOT MATERIALIZED (
    SELECT
        _members.pool,
        _members.is_all,
        _members.pool_number,
        _members.member,
        _members.candidates,
        _members.merit_sign,
        _pool_rows.*,
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
    INNER JOIN _members USING (cell_id)
    LEFT JOIN _repeats USING (cell_id, item)
),

counted AS (
    SELECT pool_number, question_number, count(score) = any_value(candidates) AS is_complete
    FROM answers
    GROUP BY pool_number, question_number
    HAVING count(score) = any_value(candidates)
        OR ((SELECT counts FROM _pool_questions) = 'any' AND count(score) > 0)
)

SELECT answers.*, counted.is_complete
FROM answers
INNER JOIN counted USING (pool_number, question_number);

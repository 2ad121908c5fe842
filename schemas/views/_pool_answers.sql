-- _pool_answers: one row per pool, counted question and candidate with a row in the matrix. is_complete: every candidate
-- has a score for it. Such questions count, and with --questions any those that one candidate has a score for.
CREATE VIEW _pool_answers AS
WITH counted AS (
    SELECT pool_number, question_number, count(score) = any_value(candidates) AS is_complete
    FROM _member_rows
    GROUP BY pool_number, question_number
    HAVING count(score) = any_value(candidates)
        OR ((SELECT counts FROM _pool_questions) = 'any' AND count(score) > 0)
)

SELECT _member_rows.*, counted.is_complete
FROM _member_rows
INNER JOIN counted USING (pool_number, question_number);

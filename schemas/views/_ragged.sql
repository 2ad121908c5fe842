-- _ragged: one row per candidate of a task in which some candidate lacks a score; with the variable pool_questions = 'any'
-- none. Where none is, nobody can be left out, and no record is read.
CREATE VIEW _ragged AS
WITH sizes AS (
    SELECT task, count(DISTINCT question_number) AS questions
    FROM _questions_of
    GROUP BY task
)

SELECT
    task,
    cell_id,
    scored,
    questions,
    is_sparse AND coalesce(CAST(getvariable('pool_sparse') AS VARCHAR) = 'mixed', false) AS is_sampled,
    row_number() OVER (ORDER BY task, scored, cell_id)::INTEGER AS place
FROM _pool_choice
INNER JOIN sizes USING (task)
SEMI JOIN (
    SELECT task
    FROM (SELECT task, min(scored) AS least FROM _pool_choice GROUP BY task)
    INNER JOIN sizes USING (task)
    WHERE least < questions
) AS incomplete USING (task)
WHERE (SELECT counts FROM _pool_questions) <> 'any';

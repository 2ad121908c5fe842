-- _left_out: one row per candidate that is left out of a task's pool, because too many questions would be lost for it.
-- The base is the questions that at least half of the candidates have a score for. While leaving out one candidate makes
-- more than a tenth of the base complete, the one is left out that makes most (of equal ones the one with fewer scores,
-- then by cell_id). gained: those questions. With the variable pool_questions = 'any' nobody is left out.
CREATE VIEW _left_out AS
WITH RECURSIVE members AS MATERIALIZED (
    SELECT
        task,
        cell_id,
        count(*) OVER of_task AS candidates,
        min(scored) OVER of_task AS fewest,
        row_number() OVER (PARTITION BY task ORDER BY scored, cell_id) AS place
    FROM _pool_cells
    WHERE (SELECT counts FROM _pool_questions) <> 'any'
    WINDOW of_task AS (PARTITION BY task)
),

-- Tasks in which some candidate lacks a score. The records of the others are not read.
ragged AS MATERIALIZED (
    SELECT members.*
    FROM members
    INNER JOIN (
        SELECT task, count(DISTINCT question_number) AS questions FROM _questions_of GROUP BY task
    ) USING (task)
    WHERE fewest < questions
),

scores AS MATERIALIZED (
    SELECT ragged.task, ragged.place, question_number
    FROM _pool_rows
    INNER JOIN ragged USING (cell_id)
    WHERE score IS NOT NULL
),

base AS MATERIALIZED (
    SELECT task, question_number, count(*) OVER (PARTITION BY task) AS size
    FROM scores
    INNER JOIN (SELECT task, any_value(candidates) AS candidates FROM ragged GROUP BY task) USING (task)
    GROUP BY task, question_number
    HAVING 2 * count(*) >= any_value(candidates)
),

in_base AS MATERIALIZED (
    SELECT task, place, count(*) AS scored
    FROM scores
    SEMI JOIN base USING (task, question_number)
    GROUP BY task, place
),

-- Only these can be left out: each lacks more than a tenth of the base.
sparse AS MATERIALIZED (
    SELECT ragged.task, ragged.place, ragged.cell_id, candidates, size
    FROM ragged
    INNER JOIN (SELECT task, any_value(size) AS size FROM base GROUP BY task) USING (task)
    LEFT JOIN in_base USING (task, place)
    WHERE size - coalesce(in_base.scored, 0) > 0.1 * size
),

-- Questions of the base that every other candidate has a score for, with the sparse ones that lack it.
lacking AS MATERIALIZED (
    SELECT base.task, base.question_number, sparse.place
    FROM base
    INNER JOIN sparse USING (task)
    INNER JOIN (
        SELECT task, any_value(ragged.candidates) - count(sparse.place) AS others
        FROM ragged
        LEFT JOIN sparse USING (task, place)
        GROUP BY task
    ) USING (task)
    LEFT JOIN (
        SELECT task, question_number, count(*) AS scored
        FROM scores
        ANTI JOIN sparse USING (task, place)
        GROUP BY task, question_number
    ) AS by_others USING (task, question_number)
    ANTI JOIN scores
        ON sparse.task = scores.task
        AND sparse.place = scores.place
        AND base.question_number = scores.question_number
    WHERE coalesce(by_others.scored, 0) = others
),

rounds AS (
    SELECT DISTINCT task, 0 AS round, []::BIGINT[] AS left_out, 0::BIGINT AS gained
    FROM sparse
    UNION ALL
    SELECT task, round + 1, list_append(left_out, place), gained
    FROM (
        SELECT task, any_value(round) AS round, any_value(left_out) AS left_out, place, count(*) AS gained
        FROM (
            SELECT
                rounds.task,
                lacking.question_number,
                any_value(rounds.round) AS round,
                any_value(rounds.left_out) AS left_out,
                any_value(lacking.place) AS place
            FROM rounds
            INNER JOIN lacking USING (task)
            WHERE NOT list_contains(rounds.left_out, lacking.place)
            GROUP BY rounds.task, lacking.question_number
            HAVING count(*) = 1
        )
        GROUP BY task, place
    )
    INNER JOIN sparse USING (task, place)
    WHERE gained > 0.1 * size AND round + 1 < candidates
    QUALIFY row_number() OVER (PARTITION BY task ORDER BY gained DESC, place) = 1
)

SELECT rounds.task, sparse.cell_id, rounds.gained
FROM rounds
INNER JOIN sparse ON rounds.task = sparse.task AND list_last(rounds.left_out) = sparse.place
WHERE round > 0;

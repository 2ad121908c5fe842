-- _left_out: one row per candidate that is left out of a task's pool, because too many questions would be lost for it.
-- The base is the questions that at least half of the candidates have a score for; where sparse is 'mixed', half of the
-- sampled ones, if the task has any. Only a candidate that lacks more than a tenth of the base can be left out.
-- Candidates go together, round after round, while a round makes more than a tenth of the base complete:
-- 1. Those that lack the same questions: more than a tenth of the base is lacked by just these candidates, be it one or
--    many. Of several such sets the one of most questions goes, then the smaller one, then the first by place.
-- 2. If there is no such set: the scarcest, those with fewest scores in the base, then by place. The smallest number
--    of them goes that makes enough complete.
-- place: by fewest scores, then cell_id. Several go only where the share of the base that they make complete exceeds their
-- share of the candidates; one candidate goes without that. Somebody always stays. round: 1, 2, …, with those that went
-- together; gained: the questions that all others of the pool now have, and had not before this round.
-- With the variable pool_questions = 'any' nobody is left out.
CREATE VIEW _left_out AS
WITH RECURSIVE
-- Those tasks, and the numbers of their candidates. The records of whole ones are not read.
ragged AS MATERIALIZED (
    SELECT
        task,
        any_value(questions) AS questions,
        count(*) AS candidates,
        count(*) FILTER (scored >= questions) AS whole,
        count(*) FILTER (is_sampled) AS sampled
    FROM _ragged
    GROUP BY task
),

scores AS MATERIALIZED (
    SELECT place, is_sampled, question_number
    FROM _pool_rows
    INNER JOIN _ragged USING (cell_id)
    WHERE _ragged.scored < questions AND score IS NOT NULL
),

base AS MATERIALIZED (
    SELECT task, question_number, whole + coalesce(of_question.scored, 0) AS scored
    FROM (SELECT DISTINCT task, question_number FROM _questions_of)
    INNER JOIN ragged USING (task)
    LEFT JOIN (
        SELECT question_number, count(*) AS scored, count(*) FILTER (is_sampled) AS scored_by_sampled
        FROM scores
        GROUP BY question_number
    ) AS of_question USING (question_number)
    WHERE CASE
        WHEN sampled > 0 THEN 2 * scored_by_sampled >= sampled
        ELSE 2 * (whole + coalesce(of_question.scored, 0)) >= candidates
    END
),

sparse AS MATERIALIZED (
    SELECT
        task,
        place,
        cell_id,
        candidates,
        size,
        row_number() OVER (PARTITION BY task ORDER BY coalesce(in_base.scored, 0), place) AS rarity
    FROM _ragged
    INNER JOIN ragged USING (task)
    INNER JOIN (SELECT task, count(*) AS size FROM base GROUP BY task) USING (task)
    LEFT JOIN (
        SELECT place, count(*) AS scored
        FROM scores
        SEMI JOIN base USING (question_number)
        GROUP BY place
    ) AS in_base USING (place)
    WHERE _ragged.scored < _ragged.questions AND size - coalesce(in_base.scored, 0) > 0.1 * size
),

of_sparse AS MATERIALIZED (
    SELECT place, question_number
    FROM scores
    SEMI JOIN sparse USING (place)
),

-- Questions of the base that every other candidate has a score for, with the sparse ones that lack it.
lacking AS MATERIALIZED (
    SELECT sparse.task, question_number, sparse.place, rarity
    FROM base
    INNER JOIN (
        SELECT task, any_value(candidates) AS candidates, count(*) AS sparse FROM sparse GROUP BY task
    ) AS counts USING (task)
    LEFT JOIN (
        SELECT question_number, count(*) AS scored FROM of_sparse GROUP BY question_number
    ) AS by_sparse USING (question_number)
    INNER JOIN sparse USING (task)
    ANTI JOIN of_sparse USING (question_number, place)
    WHERE base.scored - coalesce(by_sparse.scored, 0) = counts.candidates - counts.sparse
),

rounds AS (
    SELECT DISTINCT task, 0 AS round, []::INTEGER[] AS gone, []::INTEGER[] AS going, 0::BIGINT AS gained
    FROM sparse
    UNION ALL
    (
        WITH state AS MATERIALIZED (
            SELECT task, round, list_concat(gone, going) AS gone, candidates, size
            FROM rounds
            INNER JOIN (SELECT DISTINCT task, candidates, size FROM sparse) USING (task)
        ),

        remaining AS MATERIALIZED (
            SELECT lacking.*
            FROM lacking
            SEMI JOIN state USING (task)
            ANTI JOIN (SELECT unnest(gone) AS place FROM state) USING (place)
        ),

        -- mark: equal for two questions that the same candidates lack.
        of_question AS MATERIALIZED (
            SELECT
                task,
                question_number,
                count(*) AS lackers,
                (sum(hash(place)), bit_xor(hash(place)), min(place)) AS mark,
                max(rarity) AS rarest
            FROM remaining
            GROUP BY task, question_number
        ),

        equals AS (
            SELECT task, min(question_number) AS question_number, count(*) AS questions, any_value(lackers) AS number
            FROM of_question
            INNER JOIN state USING (task)
            GROUP BY task, mark, lackers
            HAVING
                count(*) > 0.1 * any_value(size)
                AND (number = 1 OR count(*) * any_value(candidates) > number * any_value(size))
                AND len(any_value(gone)) + number < any_value(candidates)
        ),

        scarcest AS (
            SELECT task, rarity, questions
            FROM (
                SELECT task, rarest AS rarity, sum(count(*)) OVER (PARTITION BY task ORDER BY rarest) AS questions
                FROM of_question
                GROUP BY task, rarest
            )
            INNER JOIN (
                SELECT task, rarity, row_number() OVER (PARTITION BY task ORDER BY rarity) AS number
                FROM sparse
                ANTI JOIN (SELECT unnest(gone) AS place FROM state) USING (place)
            ) USING (task, rarity)
            INNER JOIN state USING (task)
            WHERE questions > 0.1 * size
                AND questions * candidates > number * size
                AND len(gone) + number < candidates
        ),

        sets AS (
            SELECT task, true AS is_equal, questions, list(place ORDER BY place) AS going
            FROM equals
            INNER JOIN remaining USING (task, question_number)
            GROUP BY task, question_number, questions
            UNION ALL
            SELECT sparse.task, false, min(questions), list(place ORDER BY place)
            FROM sparse
            INNER JOIN (SELECT task, min(rarity) AS upto, min(questions) AS questions FROM scarcest GROUP BY task)
                AS first ON sparse.task = first.task AND rarity <= upto
            WHERE place NOT IN (SELECT unnest(gone) FROM state)
            GROUP BY sparse.task
        ),

        chosen AS MATERIALIZED (
            SELECT task, going
            FROM sets
            QUALIFY row_number() OVER (
                PARTITION BY task ORDER BY is_equal DESC, questions DESC, len(going), going
            ) = 1
        ),

        still_lacking AS (
            SELECT task, count(DISTINCT question_number) AS questions
            FROM remaining
            SEMI JOIN chosen USING (task)
            ANTI JOIN (SELECT unnest(going) AS place FROM chosen) USING (place)
            GROUP BY task
        )

        SELECT task, round + 1, gone, going, before.questions - coalesce(still_lacking.questions, 0)
        FROM chosen
        INNER JOIN state USING (task)
        INNER JOIN (SELECT task, count(*) AS questions FROM of_question GROUP BY task) AS before USING (task)
        LEFT JOIN still_lacking USING (task)
    )
)

SELECT task, sparse.cell_id, round, gained
FROM (SELECT task, round, unnest(going) AS place, gained FROM rounds)
INNER JOIN sparse USING (task, place);

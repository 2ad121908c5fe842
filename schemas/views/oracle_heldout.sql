-- oracle_heldout: one row per pool (view oracle) with questions that every candidate answered several times: the oracle
-- without its luck. For each question a candidate is chosen by the mean of half of its answers (the odd repeats, then the
-- even ones) and scored by the other half; both ways are averaged. Of equal means the candidate counts that is better over
-- all questions of that half, then the first by name. one_draw_score: the oracle as one answer each shows it, averaged over
-- the draws that all candidates have; luck: what of it is gone when another answer is scored.
-- The score of an oracle that knew each candidate's true chance lies between oracle_score and all_draws_score.
CREATE VIEW oracle_heldout AS
WITH members AS MATERIALIZED (
    FROM _members
),

-- The cells with a candidate's answers: its own, and those that asked a part of its items several times.
drawn AS MATERIALIZED (
    SELECT cell_id AS member_cell_id, cell_id, NULL::TIMESTAMPTZ AS started_at
    FROM members
    UNION
    SELECT drawn.member_cell_id, drawn.cell_id, drawn.started_at
    FROM _drawn_cells AS drawn
    SEMI JOIN members ON drawn.member_cell_id = members.cell_id
),

-- Of two such cells the newer one's answer of a number counts.
draws AS MATERIALIZED (
    SELECT
        members.pool_number,
        members.member,
        any_value(members.candidates) AS candidates,
        asked.question_number,
        stored.repeat,
        stored.repeat % 2 AS half,
        any_value(members.merit_sign) * max_by(stored.score, (drawn.started_at, drawn.cell_id)) AS merit
    FROM {rows} AS stored
    INNER JOIN drawn ON stored.cell_id = drawn.cell_id
    INNER JOIN members ON drawn.member_cell_id = members.cell_id AND stored.filter = members.filter
    INNER JOIN _questions_of AS asked
        ON members.task = asked.task
        AND members.items_digest = asked.items_digest
        AND stored.item = asked.item
    WHERE stored.repeat > 0 AND stored.score IS NOT NULL
    GROUP BY members.pool_number, members.member, asked.question_number, stored.repeat
),

answers AS MATERIALIZED (
    SELECT
        pool_number,
        member,
        question_number,
        any_value(candidates) AS candidates,
        count(*) AS drawn,
        avg(merit) AS merit,
        avg(merit) FILTER (half = 1) AS odd,
        avg(merit) FILTER (half = 0) AS even
    FROM draws
    GROUP BY pool_number, member, question_number
),

counted AS MATERIALIZED (
    SELECT pool_number, question_number, min(drawn) AS drawn
    FROM answers
    WHERE odd IS NOT NULL AND even IS NOT NULL
    GROUP BY pool_number, question_number
    HAVING count(*) = any_value(candidates)
),

compared AS MATERIALIZED (
    SELECT answers.*
    FROM answers
    SEMI JOIN counted USING (pool_number, question_number)
),

singles AS MATERIALIZED (
    SELECT pool_number, member, avg(merit) AS merit, avg(odd) AS odd, avg(even) AS even
    FROM compared
    GROUP BY pool_number, member
),

chosen AS (
    SELECT
        compared.pool_number,
        compared.question_number,
        max(compared.merit) AS all_draws,
        arg_min(compared.even, struct_pack(a := -compared.odd, b := -singles.odd, c := compared.member)) AS by_odd,
        arg_min(compared.odd, struct_pack(a := -compared.even, b := -singles.even, c := compared.member)) AS by_even
    FROM compared
    INNER JOIN singles USING (pool_number, member)
    GROUP BY compared.pool_number, compared.question_number
),

heldout AS (
    SELECT
        pool_number,
        count(*) AS questions,
        _mean(all_draws, 1e12) AS all_draws,
        _mean((by_odd + by_even) / 2, 1e12) AS merit
    FROM chosen
    GROUP BY pool_number
),

-- The best of one answer each, for each draw that every candidate has.
lucky AS (
    SELECT pool_number, _mean(best, 1e12) AS merit
    FROM (
        SELECT pool_number, question_number, repeat, max(merit) AS best
        FROM draws
        SEMI JOIN counted USING (pool_number, question_number)
        GROUP BY pool_number, question_number, repeat
        HAVING count(*) = any_value(candidates)
    )
    GROUP BY pool_number
),

best AS (
    SELECT pool_number, arg_min(member, struct_pack(loss := -merit, member := member)) AS member, max(merit) AS merit
    FROM singles
    GROUP BY pool_number
),

described AS (
    SELECT
        pool_number,
        any_value(pool) AS task,
        any_value(is_all) AS is_all,
        any_value(candidates) AS candidates,
        any_value(merit_sign) AS merit_sign,
        bool_and(higher_is_better) AS higher_is_better
    FROM members
    GROUP BY pool_number
)

SELECT
    described.task,
    described.is_all,
    described.candidates,
    heldout.questions,
    drawn.draws,
    named.candidate AS best_model,
    best.merit * described.merit_sign + 0 AS best_model_score, -- + 0: 0 and not -0
    heldout.merit * described.merit_sign + 0 AS oracle_score,
    heldout.merit - best.merit AS gap,
    lucky.merit * described.merit_sign + 0 AS one_draw_score,
    heldout.all_draws * described.merit_sign + 0 AS all_draws_score,
    lucky.merit - heldout.merit AS luck,
    described.higher_is_better
FROM heldout
INNER JOIN described USING (pool_number)
INNER JOIN best USING (pool_number)
INNER JOIN (SELECT pool_number, min(drawn) AS draws FROM counted GROUP BY pool_number) AS drawn USING (pool_number)
LEFT JOIN lucky USING (pool_number)
LEFT JOIN (SELECT DISTINCT pool_number, member, candidate FROM members) AS named
    ON best.pool_number = named.pool_number AND best.member = named.member;

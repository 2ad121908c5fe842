-- oracle: one row per pool: a task's, or of all tasks (is_all, task 'all'): the score of choosing the best candidate for
-- each question, against the best single candidate. All scores are over the questions that count, which every candidate
-- has a score for (view pool), so a missing or failed answer is never wrong, both sides see the same questions, and gap
-- is never negative. questions_scored_by_any - questions is the number of those left out. Without a common question the
-- scores are null. left_out: candidates that lack too many (view candidates). dtypes, promptings, imported: how many
-- settings, and imported cells, the candidates have among them. sampled_once: candidates whose settings sample their
-- answers, and that were asked once: the best of one draw each is partly luck (view oracle_heldout).
CREATE VIEW oracle AS
WITH members AS MATERIALIZED (
    FROM _members
),

-- Read twice rather than kept: at 200M records the copy would not fit in memory.
answers AS NOT MATERIALIZED (
    SELECT pool_number, member, candidates, merit_sign, question_number, score
    FROM _member_rows
    WHERE score IS NOT NULL
),

questions_of_pool AS (
    SELECT
        pool_number,
        question_number,
        count(*) = any_value(candidates) AS is_counted,
        max(merit_sign * score) AS best_merit
    FROM answers
    GROUP BY pool_number, question_number
),

pools AS (
    SELECT
        pool_number,
        count(*) FILTER (is_counted) AS questions,
        count(*) AS questions_scored_by_any,
        _mean(CASE WHEN is_counted THEN best_merit END, 1e12) AS oracle_merit
    FROM questions_of_pool
    GROUP BY pool_number
),

singles AS (
    SELECT pool_number, member, _mean(merit_sign * score, 1e12) AS merit
    FROM answers
    INNER JOIN questions_of_pool USING (pool_number, question_number)
    WHERE is_counted
    GROUP BY pool_number, member
),

best AS (
    SELECT pool_number, min(struct_pack(loss := -merit, member := member)) AS best
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
        CASE WHEN count(DISTINCT metric) = 1 THEN any_value(metric) END AS metric,
        bool_and(higher_is_better) AS higher_is_better,
        count(DISTINCT dtype) AS dtypes,
        count(DISTINCT (task, prompting)) - count(DISTINCT task) + 1 AS promptings,
        count(*) FILTER (imported_from IS NOT NULL) AS imported,
        count(DISTINCT candidate) FILTER (
            _samples(decoding, generation_config)
            AND cell_id NOT IN (SELECT cell_id FROM _repeats)
        ) AS sampled_once
    FROM members
    GROUP BY pool_number
),

named AS (
    SELECT DISTINCT pool_number, member, candidate, CASE WHEN NOT is_all THEN cell_id END AS cell_id
    FROM members
)

SELECT
    described.task,
    described.is_all,
    described.candidates,
    pools.questions,
    pools.questions_scored_by_any,
    described.metric,
    named.candidate AS best_model,
    -best.best.loss * merit_sign + 0 AS best_model_score, -- + 0: 0 and not -0
    pools.oracle_merit * merit_sign + 0 AS oracle_score,
    pools.oracle_merit + best.best.loss AS gap,
    coalesce(outs.left_out, 0) AS left_out,
    described.dtypes,
    described.promptings,
    described.imported,
    described.higher_is_better,
    named.cell_id AS best_cell_id,
    described.sampled_once
FROM described
LEFT JOIN pools USING (pool_number)
LEFT JOIN best USING (pool_number)
LEFT JOIN named ON described.pool_number = named.pool_number AND best.best.member = named.member
LEFT JOIN (SELECT task, count(*) AS left_out FROM _left_out GROUP BY task) AS outs
    ON described.task = outs.task AND NOT described.is_all;

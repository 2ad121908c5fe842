-- cheapest_correct: one row per task and question with a verdict from any candidate of the pool (view oracle): the
-- cheapest of the candidates that are right and have a known cost (USD, view costs); of equal ones the first by name.
-- candidate null: none is right (candidates_correct = 0), or no cost of those that are is known. A missing verdict is not
-- a wrong answer: then candidates_scored < candidates.
CREATE VIEW cheapest_correct AS
WITH chosen AS (
    SELECT
        question_number,
        count(correct) AS candidates_scored,
        count(*) FILTER (correct) AS candidates_correct,
        min(struct_pack(usd := usd, member := member)) FILTER (correct AND usd IS NOT NULL) AS best
    FROM _member_rows
    WHERE NOT is_all
    GROUP BY question_number
    HAVING count(correct) > 0
),

pools AS (
    SELECT
        task,
        any_value(candidates) AS candidates,
        CASE WHEN min(metric) = max(metric) THEN min(metric) END AS metric
    FROM _members
    WHERE NOT is_all
    GROUP BY task
)

SELECT
    pools.task,
    _question_names.question,
    pools.candidates,
    chosen.candidates_scored,
    chosen.candidates_correct,
    _members.candidate,
    best.usd,
    pools.metric,
    _members.cell_id,
    _question_names.items_digest,
    _question_names.item
FROM chosen
INNER JOIN _question_names USING (question_number)
INNER JOIN pools ON _question_names.task = pools.task
LEFT JOIN _members
    ON _question_names.task = _members.pool AND chosen.best.member = _members.member AND NOT _members.is_all;

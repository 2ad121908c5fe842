-- oracle_items: one row per task and question with a score from any candidate of the pool (view oracle): the best score,
-- and the least cost of an answer with it. Among the candidates with the best score the cheapest counts, of those with a
-- known cost (USD, view costs); of equal ones the first by name. If no cost is known, the first by name counts, and usd
-- is null. candidates_scored < candidates: some candidate has no verdict, and the view pool leaves the question out.
-- items_digest and item are the question's place (view questions), which need not be in the table of the chosen cell: the
-- view pool has the answer of each.
CREATE VIEW oracle_items AS
-- One pass: the least of the structs has the best score, then the least cost; an unknown cost comes last. FILTER,
-- because WHERE score IS NOT NULL took as long as all the rest.
WITH chosen AS (
    SELECT
        question_number,
        count(score) AS candidates_scored,
        count(*) FILTER (score IS NOT NULL AND correct) AS candidates_correct,
        min(struct_pack(loss := -merit_sign * score, usd := coalesce(usd, 'infinity'), member := member))
            FILTER (score IS NOT NULL) AS best
    FROM _member_rows
    WHERE NOT is_all
    GROUP BY question_number
)

SELECT
    _members.task,
    _question_names.question,
    _members.candidates,
    chosen.candidates_scored,
    chosen.candidates_correct,
    -_members.merit_sign * best.loss + 0 AS best_score, -- + 0: 0 and not -0
    _members.candidate,
    CASE WHEN best.usd < 'infinity' THEN best.usd END AS usd,
    _members.metric,
    _members.cell_id,
    _question_names.items_digest,
    _question_names.item
FROM chosen
INNER JOIN _question_names USING (question_number)
INNER JOIN _members
    ON _question_names.task = _members.pool AND chosen.best.member = _members.member AND NOT _members.is_all;

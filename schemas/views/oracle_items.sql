-- oracle_items: one row per task and question with a score from any candidate of the pool (view oracle): the best score,
-- and the least cost of an answer with it. Among the candidates with the best score the cheapest counts, of those with a
-- known cost (USD, view costs); of equal ones the first by name. If no cost is known, the first by name counts, and usd
-- is null. candidates_scored < candidates: some candidate has no verdict, and the view pool leaves the question out.
-- items_digest and item are the question's place (view questions), which need not be in the table of the chosen cell: the
-- view pool has the answer of each.
CREATE VIEW oracle_items AS
WITH members AS MATERIALIZED (
    FROM _members
    WHERE NOT is_all
),

answers AS (
    SELECT
        pool_number,
        member,
        question_number,
        score,
        correct,
        -merit_sign * score AS loss,
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
            stated_usd,
            'infinity'
        ) AS usd
    FROM _pool_rows
    INNER JOIN members USING (cell_id)
    LEFT JOIN _repeats USING (cell_id, item)
),

-- One pass: the least of the structs has the best score, then the least cost; an unknown cost comes last. FILTER,
-- because WHERE score IS NOT NULL took as long as all the rest.
chosen AS (
    SELECT
        pool_number,
        question_number,
        count(score) AS candidates_scored,
        count(*) FILTER (score IS NOT NULL AND correct) AS candidates_correct,
        min(struct_pack(loss := loss, usd := usd, member := member)) FILTER (score IS NOT NULL) AS best
    FROM answers
    GROUP BY pool_number, question_number
)

SELECT
    members.task,
    _question_names.question,
    members.candidates,
    chosen.candidates_scored,
    chosen.candidates_correct,
    -members.merit_sign * best.loss + 0 AS best_score, -- + 0: 0 and not -0
    members.candidate,
    CASE WHEN best.usd < 'infinity' THEN best.usd END AS usd,
    members.metric,
    members.cell_id,
    _question_names.items_digest,
    _question_names.item
FROM chosen
INNER JOIN members ON chosen.pool_number = members.pool_number AND chosen.best.member = members.member
INNER JOIN _question_names USING (question_number);

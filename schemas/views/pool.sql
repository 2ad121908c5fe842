-- pool: one row per task, counted question and candidate: what a router chooses among. It is the one pool that oracle,
-- oracle_items, complementarity, cheapest_correct and pareto are computed from. question and candidate: as in the views
-- of these names. usd: view costs.
CREATE VIEW pool AS
SELECT
    _pool_answers.task,
    _question_names.question,
    _pool_answers.candidate,
    score,
    correct,
    outcome,
    usd,
    prompt_tokens,
    completion_tokens,
    cached_tokens,
    latency_s,
    _pool_answers.cell_id,
    _pool_answers.items_digest,
    _pool_answers.item
FROM _pool_answers
INNER JOIN _question_names USING (question_number)
WHERE NOT _pool_answers.is_all;

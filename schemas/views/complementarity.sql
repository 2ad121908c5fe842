-- complementarity: one row per pair of candidates of a pool (view oracle): over the questions with a verdict from both,
-- how many both solve, one alone, or neither. union_score: the share that one of them solves. m candidates make
-- m(m - 1)/2 pairs: in a large pool query some of them (WHERE candidate_a = … or candidate_b = …), or use
-- collectors.metrics.complementarity.
CREATE VIEW complementarity AS
WITH verdicts AS NOT MATERIALIZED (
    SELECT pool, is_all, candidate, question_number, correct
    FROM _member_rows
    WHERE correct IS NOT NULL
)

SELECT
    a.pool AS task,
    a.is_all,
    a.candidate AS candidate_a,
    b.candidate AS candidate_b,
    count(*) AS questions,
    count(*) FILTER (a.correct AND b.correct) AS both,
    count(*) FILTER (a.correct AND NOT b.correct) AS only_a,
    count(*) FILTER (b.correct AND NOT a.correct) AS only_b,
    count(*) FILTER (NOT a.correct AND NOT b.correct) AS neither,
    count(*) FILTER (a.correct OR b.correct) / count(*) AS union_score
FROM verdicts AS a
INNER JOIN verdicts AS b
    ON a.is_all = b.is_all
    AND a.pool = b.pool
    AND a.question_number = b.question_number
    AND a.candidate < b.candidate
GROUP BY ALL;

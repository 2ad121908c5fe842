-- judge_agreement: one row per task and pair of judges: how far they agree on the answers that both scored, by
-- Krippendorff's alpha for interval data, and the share with one opinion on right and wrong. alpha = 1 - D_o / D_e, where
-- D_o is the mean of (a - b)² / 2 over the answers, and D_e the mean of (x - y)² / 2 over all pairs of different values
-- that the two gave to any answers (K. Krippendorff, Content Analysis, 2004, chapter 11). 1: they agree; 0: as by
-- chance; null: below two answers, or where all values are equal. The task's own verdicts are the judge ''.
CREATE VIEW judge_agreement AS
WITH opinions AS (
    SELECT
        verdicts.task,
        verdicts.judge_id,
        judges.judge,
        verdicts.cell_id,
        verdicts.item,
        _mean(verdicts.score, 1e12) AS score,
        bool_and(verdicts.correct) AS correct
    FROM verdicts
    INNER JOIN judges USING (judge_id, filter)
    WHERE verdicts.repeat = 0 AND verdicts.score IS NOT NULL
    GROUP BY ALL
    UNION ALL
    SELECT records.task, '' AS judge_id, '' AS judge, records.cell_id, records.item, records.score, records.correct
    FROM records
    INNER JOIN cells USING (cell_id, filter)
    WHERE records.repeat = 0 AND records.score IS NOT NULL AND records.task IN (SELECT task FROM judges)
),

pairs AS (
    SELECT
        a.task,
        a.judge,
        a.judge_id,
        b.judge AS other_judge,
        b.judge_id AS other_judge_id,
        a.score AS x,
        b.score AS y,
        a.correct = b.correct AS is_same
    FROM opinions AS a
    INNER JOIN opinions AS b
        ON a.cell_id = b.cell_id
        AND a.item = b.item
        AND a.task = b.task
        AND a.judge_id < b.judge_id
),

moments AS (
    SELECT
        task,
        judge,
        judge_id,
        other_judge,
        other_judge_id,
        count(*) AS answers,
        avg(is_same::INTEGER) AS agreed,
        2 * count(*) AS n,
        _sum((x - y) * (x - y), 1e12) AS apart,
        _sum(x + y, 1e12) AS total,
        _sum(x * x + y * y, 1e12) AS squares
    FROM pairs
    GROUP BY ALL
)

SELECT
    task,
    judge,
    judge_id,
    other_judge,
    other_judge_id,
    answers,
    agreed,
    -- The sum of (x - y)² over all ordered pairs of n values is 2·(n·Σx² - (Σx)²).
    CASE
        WHEN answers > 1 AND n * squares > total * total
            THEN 1 - (n - 1) * apart / (n * squares - total * total)
    END AS alpha
FROM moments;

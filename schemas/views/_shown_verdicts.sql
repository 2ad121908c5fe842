-- _shown_verdicts: one row per item of a cell with a verdict of the chosen judge: that of its filter, over all repeats. Of
-- an answer that was compared with several others it is the mean.
CREATE VIEW _shown_verdicts AS
SELECT
    written.cell_id,
    written.generation,
    written.item,
    _mean(written.score, 1e12) AS score,
    CASE WHEN count(*) = 1 THEN bool_and(written.correct) END AS correct,
    min(written.failure) AS failure,
    CASE WHEN count(DISTINCT written.outcome) = 1 THEN min(written.outcome) ELSE 'judge' END AS outcome
FROM {verdicts} AS written
INNER JOIN _shown_judges USING (judge_id, filter)
WHERE repeat = 0
GROUP BY ALL;

-- complementarity: one row per pair of cells of a pool (as in oracle): over the items with a verdict from both, how
-- many both solve, one alone, or neither. union_score: the score of the better of the two for each item. m models make
-- m(m - 1)/2 pairs: in a large pool query some of them (WHERE model_a = … or model_b = …), or use
-- collectors.metrics.complementarity.
CREATE VIEW complementarity AS
WITH verdicts AS NOT MATERIALIZED (
    SELECT _members.*, matrix.item, matrix.correct
    FROM matrix
    INNER JOIN _members USING (cell_id)
    WHERE matrix.correct IS NOT NULL
)

SELECT
    a.task,
    a.model AS model_a,
    b.model AS model_b,
    count(*) AS items,
    count(*) FILTER (a.correct AND b.correct) AS both,
    count(*) FILTER (a.correct AND NOT b.correct) AS only_a,
    count(*) FILTER (b.correct AND NOT a.correct) AS only_b,
    count(*) FILTER (NOT a.correct AND NOT b.correct) AS neither,
    count(*) FILTER (a.correct OR b.correct) / count(*) AS union_score,
    a.items_digest,
    a.prompting,
    a.dtype,
    a.quantization,
    a.metric,
    a.cell_id AS cell_id_a,
    b.cell_id AS cell_id_b
FROM verdicts AS a
INNER JOIN verdicts AS b ON a.pool = b.pool AND a.item = b.item AND a.cell_id < b.cell_id
GROUP BY ALL;

-- _ruled_rows: the rows of _rows with outcomes and scores by the rules of schemas.verdicts, which rows of schema 6 lack.
CREATE VIEW _ruled_rows AS
WITH valued AS (
    SELECT
        _rows.*,
        metric,
        is_set_level,
        higher_is_better,
        correct_threshold,
        CASE
            WHEN outcome IS NULL AND (older_set_level OR failure = 'empty_answer') THEN _verdict(metrics, metric)
            ELSE score
        END AS verdict,
        _outcome(
            outcome, failure, finish_reason, coalesce(is_set_level, false) OR verdict IS NOT NULL OR repeat > 0
        ) AS ruled_outcome
    FROM _rows
    LEFT JOIN (
        SELECT cell_id, metric, is_set_level, older_set_level, higher_is_better, correct_threshold FROM cells
    ) AS described USING (cell_id)
),

scores AS (
    SELECT
        *,
        _score(outcome, score, ruled_outcome, verdict, is_set_level, higher_is_better) AS ruled_score
    FROM valued
)

SELECT
    * REPLACE (
        ruled_score AS score,
        ruled_outcome AS outcome,
        CASE
            WHEN outcome IS NOT NULL THEN correct
            WHEN ruled_score BETWEEN 0 AND 1 THEN ruled_score >= correct_threshold
        END AS correct
    )
FROM scores;

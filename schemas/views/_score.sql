-- _score: the score of an item with this outcome, as schemas.verdicts.score_of. A row of schema 7 (with a stored_outcome)
-- holds it; in others `verdict` is the primary metric's value, and the items of a metric over whole sets have none.
CREATE MACRO _score(stored_outcome, score, outcome, verdict, is_set_level, higher_is_better) AS (
    CASE
        WHEN is_set_level THEN NULL
        WHEN stored_outcome IS NOT NULL THEN score
        WHEN outcome IN ('engine', 'judge', 'store') THEN NULL
        WHEN verdict IS NULL AND outcome <> 'ok' AND higher_is_better THEN 0.0
        ELSE verdict
    END
);

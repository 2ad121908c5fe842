-- _answer: the text of a reference answer that is stored as JSON, or as it is where it is not JSON.
CREATE MACRO _answer(target) AS (
    coalesce(TRY(target ->> '$'), target)
);

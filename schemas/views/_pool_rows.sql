-- _pool_rows: one row per candidate and question with a row in the matrix, before candidates are left out.
CREATE VIEW _pool_rows AS
SELECT
    matrix.*,
    _pool_choice.candidate,
    _questions_of.question_number
FROM matrix
INNER JOIN _pool_choice USING (cell_id)
INNER JOIN _questions_of
    ON matrix.task = _questions_of.task
    AND matrix.items_digest = _questions_of.items_digest
    AND matrix.item = _questions_of.item;

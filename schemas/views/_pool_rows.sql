-- _pool_rows: one row per candidate and question with a row in the matrix, before candidates are left out.
CREATE VIEW _pool_rows AS
SELECT
    matrix.*,
    _pool_choice.candidate,
    _questions_of.question_number
FROM matrix
INNER JOIN _pool_choice USING (cell_id)
INNER JOIN _questions_of ON _pool_choice.first_item_number + matrix.item = _questions_of.item_number
WHERE matrix.item BETWEEN 0 AND _pool_choice.asked_items - 1;

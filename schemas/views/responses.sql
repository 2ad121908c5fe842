-- responses: one row per item, filter and repeat of a cell with a stored answer. Joins records on the first columns.
CREATE VIEW responses AS
SELECT {key}, {answers}, generation
FROM _open_rows
WHERE responses IS NOT NULL OR loglikelihoods IS NOT NULL OR is_greedy IS NOT NULL OR filtered IS NOT NULL
UNION ALL BY NAME
SELECT part.*
FROM {responses} AS part
ANTI JOIN _outdated
    ON part.cell_id = _outdated.cell_id
    AND part.generation < _outdated.generation
    AND part.item BETWEEN _outdated.first_item AND _outdated.last_item;

-- responses: one row per item, filter and repeat of a cell: what the model answered. Joins records on the first columns.
CREATE VIEW responses AS
SELECT
    cell_id,
    model,
    task,
    item,
    item_hash,
    filter,
    repeat,
    responses,
    loglikelihoods,
    is_greedy,
    filtered
FROM _rows;

-- _pool_cells: one row per task and candidate of the pool, as in _pool_choice, with all columns of its cell.
CREATE VIEW _pool_cells AS
SELECT
    cells.*,
    chosen.scored,
    chosen.is_sparse,
    chosen.version,
    chosen.cells,
    chosen.candidate,
    chosen.asked_items,
    chosen.first_item_number
FROM _pool_choice AS chosen
INNER JOIN cells ON chosen.cell_id = cells.cell_id;

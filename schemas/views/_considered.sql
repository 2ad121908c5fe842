-- _considered: one row per cell that the pool chooses among, with all columns of the view cells. scored: items with a score,
-- null without any. is_sparse: runs sampled it, and not all of its items have a score.
CREATE VIEW _considered AS
SELECT
    cells.*,
    scored,
    sampled_items IS NOT NULL AND scored < planned_items AS is_sparse
FROM cells
LEFT JOIN _scored USING (cell_id)
WHERE CAST(getvariable('pool_cells') AS VARCHAR[]) IS NULL
    OR cell_id IN (SELECT unnest(CAST(getvariable('pool_cells') AS VARCHAR[])));

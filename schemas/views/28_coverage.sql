-- coverage: one row per planned cell: how many of its items were collected, and what became of them.
-- attempted = scored + unanswered + failed; missing = planned - attempted. Primary filter, repeat 0.
CREATE VIEW coverage AS
SELECT
    cells.cell_id,
    cells.model,
    cells.task,
    cells.items_digest,
    cells.prompting,
    cells.dtype,
    cells.quantization,
    cells.planned_items AS planned,
    coalesce(_totals.attempted, 0) AS attempted,
    coalesce(_totals.scored, 0) AS scored,
    coalesce(_totals.unanswered, 0) AS unanswered,
    coalesce(_totals.failed, 0) AS failed,
    cells.planned_items - coalesce(_totals.attempted, 0) AS missing
FROM cells
LEFT JOIN _totals USING (cell_id);

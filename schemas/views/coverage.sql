-- coverage: one row per planned cell: how many of its items were collected, and with which result. planned = asked +
-- left_out: where runs sampled a cell, left_out are the items that they left out on purpose. missing = asked -
-- attempted, 0 where a run that planned more has lost its object; failed by our fault. Primary filter, repeat 0.
-- suspicions: the kinds of suspicion about an imported cell (view suspicions); null without one. Of the attempted items,
-- priced have token counts and a price (which may be 0), unpriced have token counts alone, untokened have none; stated
-- have a cost by their source.
CREATE VIEW coverage AS
WITH suspected AS (
    SELECT cell_id, string_agg(DISTINCT kind, ', ' ORDER BY kind) AS suspicions
    FROM suspicions
    WHERE cell_id IS NOT NULL
    GROUP BY cell_id
)
SELECT
    cells.cell_id,
    cells.model,
    cells.task,
    cells.items_digest,
    cells.prompting,
    cells.dtype,
    cells.quantization,
    cells.effort,
    cells.imported_from,
    cells.planned_items AS planned,
    CASE
        WHEN cells.sampled_items IS NULL THEN cells.planned_items
        ELSE least(cells.planned_items, greatest(cells.sampled_items, coalesce(_totals.attempted, 0)))
    END AS asked,
    cells.planned_items - asked AS left_out,
    coalesce(_totals.attempted, 0) AS attempted,
    coalesce(_totals.scored, 0) AS scored,
    coalesce(_totals.ok, 0) AS ok,
    coalesce(_totals.empty, 0) AS empty,
    coalesce(_totals.truncated, 0) AS truncated,
    coalesce(_totals.overlong, 0) AS overlong,
    coalesce(_totals.nan, 0) AS nan,
    coalesce(_totals.filtered, 0) AS filtered,
    coalesce(_totals.refused, 0) AS refused,
    coalesce(_totals.failed, 0) AS failed,
    greatest(0, asked - coalesce(_totals.attempted, 0)) AS missing,
    coalesce(_cell_costs.priced, 0) AS priced,
    coalesce(_cell_costs.unpriced, 0) AS unpriced,
    coalesce(_cell_costs.untokened, 0) AS untokened,
    coalesce(_totals.stated, 0) AS stated,
    suspected.suspicions
FROM cells
LEFT JOIN _totals USING (cell_id)
LEFT JOIN _cell_costs USING (cell_id)
LEFT JOIN suspected USING (cell_id);

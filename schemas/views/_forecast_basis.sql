-- _forecast_basis: one row per task, item table, prompting and metric: a digest of its cells and of what they scored. A
-- forecast was made of another lake where it differs from the one that its fit names.
CREATE VIEW _forecast_basis AS
SELECT
    cells.task,
    cells.items_digest,
    cells.prompting,
    cells.metric,
    md5(
        string_agg(
            concat_ws(' ', cells.cell_id, _totals.attempted, _totals.scored, _totals.score), ',' ORDER BY cells.cell_id
        )
    ) AS basis,
    count(*) AS cells
FROM cells
INNER JOIN _totals USING (cell_id)
GROUP BY cells.task, cells.items_digest, cells.prompting, cells.metric;

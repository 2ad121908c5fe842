-- _forecast_basis: one row per task, item table, prompting and metric: a digest of its cells and of each answer's score. A
-- forecast was made of another lake where it differs from the one that its fit names.
-- An answer has a weight by its item, and a cell the sums of weights and of scores times weights: whole numbers, which add
-- up exactly in any order. They differ where two models have the same mean of other answers. Constants of MurmurHash and
-- Knuth; DuckDB's own hash may change with its version, and all forecasts would be stale.
CREATE VIEW _forecast_basis AS
WITH weighed AS (
    SELECT
        cell_id,
        item,
        score,
        ((item::BIGINT + 1) * 2654435761) % 4294967296 AS mixed,
        (xor(mixed, mixed >> 15) * 1540483477) % 4294967296 AS mixed_again,
        xor(mixed_again, mixed_again >> 13) AS weight
    FROM matrix
),

marks AS (
    SELECT
        cell_id,
        count(*) AS attempted,
        count(score) AS scored,
        sum(weight) AS of_items,
        coalesce(sum(weight) FILTER (score IS NULL), 0) AS of_open,
        coalesce(sum(weight) FILTER (score = 1), 0) AS of_ones,
        coalesce(
            sum(TRY_CAST(score * 1e12 AS BIGINT)::HUGEINT * weight) FILTER (
                score NOT IN (0, 1) AND score BETWEEN -1000 AND 1000
            ),
            0
        ) AS of_others,
        string_agg(concat_ws('=', item, score), ';' ORDER BY item) FILTER (NOT score BETWEEN -1000 AND 1000) AS far
    FROM weighed
    GROUP BY cell_id
)

SELECT
    cells.task,
    cells.items_digest,
    cells.prompting,
    cells.metric,
    md5(
        string_agg(
            concat_ws(' ', cells.cell_id, attempted, scored, of_items, of_open, of_ones, of_others, far),
            ',' ORDER BY cells.cell_id
        )
    ) AS basis,
    count(*) AS cells
FROM cells
INNER JOIN marks USING (cell_id)
GROUP BY cells.task, cells.items_digest, cells.prompting, cells.metric;

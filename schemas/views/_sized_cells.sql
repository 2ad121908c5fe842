-- _sized_cells: one row per cell, with the number of parameters of its model: by a row of models/ about its own source at
-- its revision, else about its name at its revision. is_hosted: an import, or an endpoint, whose host asks its own prices.
CREATE VIEW _sized_cells AS
WITH sizes AS (
    SELECT model, source, revision, max(parameters) AS parameters
    FROM models
    GROUP BY model, source, revision
),

by_name AS (
    SELECT model, revision, max(parameters) AS parameters
    FROM sizes
    WHERE revision IS NOT NULL
    GROUP BY model, revision
)

SELECT
    cells.cell_id,
    cells.model,
    cells.source,
    coalesce(sizes.parameters, by_name.parameters) AS parameters,
    cells.imported_from IS NOT NULL OR cells.endpoint IS NOT NULL AS is_hosted
FROM cells
LEFT JOIN sizes
    ON cells.model = sizes.model
    AND cells.source = sizes.source
    AND cells.revision IS NOT DISTINCT FROM sizes.revision
LEFT JOIN by_name ON cells.model = by_name.model AND cells.revision = by_name.revision;

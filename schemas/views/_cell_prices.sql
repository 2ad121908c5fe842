-- _cell_prices: one row per cell, with its row of model_prices. Nothing about another cell counts. The prices of a host's
-- cache are null for cells of our own engines.
CREATE VIEW _cell_prices AS
SELECT
    _sized_cells.cell_id,
    model_prices.* EXCLUDE (model, model_source, parameters, source)
        REPLACE (
            CASE WHEN is_hosted THEN usd_per_million_cached END AS usd_per_million_cached,
            CASE WHEN is_hosted THEN usd_per_million_cache_write END AS usd_per_million_cache_write
        )
FROM _sized_cells
INNER JOIN model_prices
    ON _sized_cells.model = model_prices.model
    AND _sized_cells.source = model_prices.model_source
    AND _sized_cells.parameters IS NOT DISTINCT FROM model_prices.parameters;

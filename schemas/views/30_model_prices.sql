-- model_prices: one row per model that a cell asked, with the price that its tokens are charged by.
-- basis says how it was found: 'named' by price_names, 'equal' names of model (or its source) and entry, in any case of
-- letters, 'tier' by the number of parameters alone, null: unpriced, and so are all its costs. Among several entries the
-- cheapest by prompt + completion counts, then provider and name. Prices are those of the newest day; others by
-- SET VARIABLE prices_on = '2025-01-31', and one provider's alone by SET VARIABLE price_provider = 'together_ai'.
CREATE VIEW model_prices AS
WITH valid AS (
    SELECT *
    FROM prices
    WHERE valid_from <= coalesce(TRY_CAST(getvariable('prices_on') AS DATE), DATE '9999-12-31')
        AND provider = coalesce(getvariable('price_provider')::VARCHAR, provider)
    QUALIFY row_number() OVER (
        PARTITION BY model, provider, over_parameters, to_parameters ORDER BY valid_from DESC
    ) = 1
),

asked AS (
    SELECT cells.model, any_value(cells.source) AS source, max(models.parameters) AS parameters
    FROM cells
    LEFT JOIN models ON cells.model = models.model AND cells.revision IS NOT DISTINCT FROM models.revision
    GROUP BY cells.model
),

named AS (
    SELECT asked.*, price_names.name IS NOT NULL AS is_named, price_name, price_names.provider AS named_provider
    FROM asked
    LEFT JOIN price_names ON lower(asked.model) = lower(price_names.name)
),

candidates AS (
    SELECT named.model, 1 AS place, 'named' AS basis, valid.* RENAME (model AS price_model)
    FROM named
    INNER JOIN valid
        ON lower(valid.model) = lower(named.price_name)
        AND valid.provider = coalesce(named.named_provider, valid.provider)
    UNION ALL
    SELECT named.model, 2, 'equal', valid.*
    FROM named
    INNER JOIN valid ON lower(valid.model) = lower(named.model)
    WHERE NOT is_named
    UNION ALL
    SELECT named.model, 2, 'equal', valid.*
    FROM named
    INNER JOIN valid ON lower(valid.model) = lower(named.source)
    WHERE NOT is_named
    UNION ALL
    SELECT named.model, 3, 'tier', valid.*
    FROM named
    INNER JOIN valid
        ON named.parameters > valid.over_parameters
        AND named.parameters <= coalesce(valid.to_parameters, named.parameters)
    WHERE NOT is_named
),

chosen AS (
    SELECT *
    FROM candidates
    WHERE usd_per_million_prompt IS NOT NULL AND usd_per_million_completion IS NOT NULL
    QUALIFY row_number() OVER (
        PARTITION BY model
        ORDER BY place, usd_per_million_prompt + usd_per_million_completion, provider, price_model
    ) = 1
)

SELECT
    asked.model,
    asked.parameters,
    basis,
    price_model,
    provider,
    usd_per_million_prompt,
    usd_per_million_cached,
    usd_per_million_completion,
    usd_per_request,
    valid_from,
    chosen.source
FROM asked
LEFT JOIN chosen USING (model);

-- model_prices: one row per model of a cell, with the price of its tokens.
-- basis is the rule that matched model and price. 'named': by an entry in price_names. 'equal': the name of the model,
-- or its source, equals that of the price, whatever the case. 'short': the model has no organisation in its name, and
-- exactly one organisation/name ends in it (a name of two organisations matches none, and neither does one whose source
-- names another organisation). 'tier': by the number of parameters alone. null: unpriced, and so are all its costs. Of
-- several entries the cheapest by prompt + completion counts, then provider and name. Prices are those of the newest
-- day; choose another with SET VARIABLE prices_on = '2025-01-31', and one provider with SET VARIABLE price_provider =
-- 'together_ai'. The views of the pool keep the prices that were chosen when they were made.
CREATE VIEW model_prices AS
WITH valid AS (
    SELECT *
    FROM prices
    WHERE valid_from <= coalesce(CAST(getvariable('prices_on') AS DATE), DATE '9999-12-31')
        AND provider = coalesce(getvariable('price_provider')::VARCHAR, provider)
    QUALIFY row_number() OVER (
        PARTITION BY lower(model), provider, over_parameters, to_parameters
        ORDER BY valid_from DESC
    ) = 1
),

-- Names without an organisation -> the only full name that ends in it, on any day and from any provider.
full_names AS (
    SELECT split_part(full_name, '/', 2) AS short_name, any_value(full_name) AS full_name
    FROM (SELECT lower(name) AS full_name FROM price_names UNION SELECT lower(model) FROM prices)
    WHERE regexp_full_match(full_name, '[^/]+/[^/]+')
    GROUP BY ALL
    HAVING count(*) = 1
),

asked AS (
    SELECT
        cells.model,
        min(cells.source) AS source,
        max(models.parameters) AS parameters,
        bool_or(regexp_full_match(cells.source, '[^/]+/[^/]+')) AS has_organisation,
        list(lower(cells.source)) AS sources
    FROM cells
    LEFT JOIN models ON cells.model = models.model AND cells.revision IS NOT DISTINCT FROM models.revision
    GROUP BY cells.model
),

keyed AS (
    SELECT
        asked.*,
        full_name IS NOT NULL AS is_short,
        coalesce(full_name, lower(asked.model)) AS price_key
    FROM asked
    LEFT JOIN full_names
        ON short_name = lower(asked.model)
        AND (NOT has_organisation OR list_unique(sources) = 1 AND sources[1] = full_name)
        AND short_name NOT IN (SELECT lower(name) FROM price_names UNION SELECT lower(model) FROM prices)
),

named AS (
    SELECT keyed.*, price_names.name IS NOT NULL AS is_named, price_name, price_names.provider AS named_provider
    FROM keyed
    LEFT JOIN price_names ON price_key = lower(price_names.name)
),

candidates AS (
    SELECT
        named.model,
        1 AS place,
        CASE WHEN is_short THEN 'short' ELSE 'named' END AS basis,
        valid.* RENAME (model AS price_model)
    FROM named
    INNER JOIN valid
        ON lower(valid.model) = lower(named.price_name)
        AND valid.provider = coalesce(named.named_provider, valid.provider)
    UNION ALL
    SELECT named.model, 2, CASE WHEN is_short THEN 'short' ELSE 'equal' END, valid.*
    FROM named
    INNER JOIN valid ON lower(valid.model) = price_key
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

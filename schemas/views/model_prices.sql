-- model_prices: one row per model, source and size of the cells, with the price of its tokens. What is known of another
-- source of the same name does not count.
-- basis is the rule that matched model and price. 'named': by an entry in price_names. 'equal': the name of the model,
-- or its source, equals that of the price, whatever the case. 'short': the model has no organisation in its name, and
-- exactly one organisation/name ends in it (a name of two organisations matches none, and neither does one whose source
-- names another organisation). 'tier': by the number of parameters alone. null: unpriced, and so are all its costs. Of
-- several entries the cheapest by prompt + completion counts, then provider and name. Prices are those of today: one
-- that begins later does not count yet. Choose another day with SET VARIABLE prices_on = '2025-01-31', and one provider
-- with SET VARIABLE price_provider = 'together_ai'. The views of the pool keep the prices that were chosen when they
-- were made.
CREATE VIEW model_prices AS
WITH valid AS (
    SELECT *
    FROM prices
    WHERE valid_from <= coalesce(CAST(getvariable('prices_on') AS DATE), current_date)
        AND provider = coalesce(getvariable('price_provider')::VARCHAR, provider)
    QUALIFY row_number() OVER (
        PARTITION BY lower(model), provider, over_parameters, to_parameters
        ORDER BY valid_from DESC
    ) = 1
),

-- Names that have a price on that day, from any provider.
price_keys AS (
    SELECT lower(name) AS price_key FROM price_names
    UNION
    SELECT lower(model) FROM prices
    WHERE valid_from <= coalesce(CAST(getvariable('prices_on') AS DATE), current_date)
),

-- Names without an organisation -> the only full name that ends in it.
full_names AS (
    SELECT split_part(full_name, '/', 2) AS short_name, min(full_name) AS full_name
    FROM (SELECT price_key AS full_name FROM price_keys)
    WHERE regexp_full_match(full_name, '[^/]+/[^/]+')
    GROUP BY ALL
    HAVING count(*) = 1
),

asked AS (
    SELECT DISTINCT
        model,
        source AS model_source,
        parameters,
        regexp_full_match(source, '[^/]+/[^/]+') AS has_organisation
    FROM _sized_cells
),

keyed AS (
    SELECT
        asked.*,
        full_name IS NOT NULL AS is_short,
        coalesce(full_name, lower(asked.model)) AS price_key
    FROM asked
    LEFT JOIN full_names
        ON short_name = lower(asked.model)
        AND (NOT has_organisation OR lower(model_source) = full_name)
        AND short_name NOT IN (SELECT price_key FROM price_keys)
),

named AS (
    SELECT keyed.*, price_names.name IS NOT NULL AS is_named, price_name, price_names.provider AS named_provider
    FROM keyed
    LEFT JOIN price_names ON price_key = lower(price_names.name)
),

offers AS (
    SELECT
        named.model,
        named.model_source,
        named.parameters,
        1 AS place,
        CASE WHEN is_short THEN 'short' ELSE 'named' END AS basis,
        valid.* RENAME (model AS price_model)
    FROM named
    INNER JOIN valid
        ON lower(valid.model) = lower(named.price_name)
        AND valid.provider = coalesce(named.named_provider, valid.provider)
    UNION ALL
    SELECT named.model, named.model_source, named.parameters, 2, CASE WHEN is_short THEN 'short' ELSE 'equal' END, valid.*
    FROM named
    INNER JOIN valid ON lower(valid.model) = price_key
    WHERE NOT is_named
    UNION ALL
    SELECT named.model, named.model_source, named.parameters, 2, 'equal', valid.*
    FROM named
    INNER JOIN valid ON lower(valid.model) = lower(named.model_source)
    WHERE NOT is_named
    UNION ALL
    SELECT named.model, named.model_source, named.parameters, 3, 'tier', valid.*
    FROM named
    INNER JOIN valid
        ON named.parameters > valid.over_parameters
        AND named.parameters <= coalesce(valid.to_parameters, named.parameters)
    WHERE NOT is_named
),

chosen AS (
    SELECT *
    FROM offers
    WHERE usd_per_million_prompt IS NOT NULL AND usd_per_million_completion IS NOT NULL
    QUALIFY row_number() OVER (
        PARTITION BY model, model_source, parameters
        ORDER BY
            place,
            usd_per_million_prompt + usd_per_million_completion,
            provider,
            price_model,
            usd_per_million_prompt,
            usd_per_request,
            usd_per_million_cached,
            usd_per_million_cache_write,
            usd_per_million_reasoning,
            over_parameters,
            valid_from DESC,
            basis
    ) = 1
)

SELECT
    asked.model,
    asked.model_source,
    asked.parameters,
    basis,
    price_model,
    provider,
    usd_per_million_prompt,
    usd_per_million_cached,
    usd_per_million_cache_write,
    usd_per_million_completion,
    usd_per_million_reasoning,
    usd_per_million_batch_prompt,
    usd_per_million_batch_completion,
    usd_per_request,
    valid_from,
    chosen.source
FROM asked
LEFT JOIN chosen
    ON asked.model = chosen.model
    AND asked.model_source = chosen.model_source
    AND asked.parameters IS NOT DISTINCT FROM chosen.parameters;

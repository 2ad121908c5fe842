-- price_names: one row per model or accelerator (whatever the case) with the name of the price that applies to it, by
-- the newest entry.
CREATE VIEW price_names AS
SELECT *
FROM {price_names}
QUALIFY row_number() OVER (PARTITION BY lower(name) ORDER BY added_at DESC, source, name, price_name, provider) = 1;

-- price_names: one row per model or accelerator that somebody said is priced by another name's entry, the newest word
-- in any case of letters.
CREATE VIEW price_names AS
SELECT *
FROM {price_names}
QUALIFY row_number() OVER (PARTITION BY lower(name) ORDER BY added_at DESC, source, name) = 1;

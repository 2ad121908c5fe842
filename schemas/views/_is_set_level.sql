-- _is_set_level: whether a cell's metric has a value over a whole set alone, as schemas.verdicts.is_set_level.
CREATE MACRO _is_set_level(aggregation, metric, output_type, is_imported) AS (
    CASE
        WHEN aggregation IS NOT NULL THEN aggregation <> 'mean'
        WHEN metric IN ('perplexity', 'word_perplexity', 'byte_perplexity', 'bits_per_byte', 'mcc') THEN true
        WHEN is_imported THEN false
        ELSE metric IN ('bleu', 'chrf', 'chrf++', 'ter', 'bypass')
        OR (metric = 'f1' AND coalesce(output_type, '') = 'multiple_choice')
    END
);

-- _is_set_level: whether a cell's metric has a value over a whole set alone, as schemas.verdicts.is_set_level.
CREATE MACRO _is_set_level(aggregation, metric, output_type) AS (
    CASE
        WHEN aggregation IS NOT NULL THEN aggregation <> 'mean'
        ELSE metric IN (
            'perplexity', 'word_perplexity', 'byte_perplexity', 'bits_per_byte',
            'mcc', 'bleu', 'chrf', 'chrf++', 'ter', 'bypass'
        )
        OR (metric = 'f1' AND coalesce(output_type, '') = 'multiple_choice')
    END
);

-- models: one row per model at one revision.
CREATE VIEW models AS
SELECT DISTINCT
    model,
    source,
    revision,
    architecture,
    parameters,
    weight_bytes,
    max_length,
    tokenizer_hash,
    chat_template_hash
FROM read_parquet({models}, hive_partitioning = false);

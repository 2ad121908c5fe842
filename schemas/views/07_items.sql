-- items: one row per document of a task, in the version of the task's data that items_digest names.
CREATE VIEW items AS
SELECT task, items_digest, item, item_hash, prompt, target, choices, subject, doc, content_hash, source_key
FROM read_parquet({items}, hive_partitioning = false);

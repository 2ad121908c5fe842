-- _stored: one row per item, filter and repeat in the shard files, all columns, also of items that a file does not own.
CREATE VIEW _stored AS
SELECT
    * EXCLUDE (score, correct),
    -- A score that is no finite number is unknown, like a null, and so is that of an item without an answer.
    CASE WHEN isfinite(score) AND failure IS NULL THEN score END AS score,
    CASE WHEN isfinite(score) AND failure IS NULL THEN correct END AS correct,
    TRY_CAST(regexp_extract(filename, '-g([0-9]{1,6})-[0-9-]+\.parquet$', 1) AS INTEGER) AS generation
FROM {shards}
-- Only files named as a shard, and only the rows that the name promises: a copy that somebody left beside one, or under
-- another name, must not double its rows. DuckDB decides the first per file.
WHERE
    regexp_matches(filename, '(?:^|/)[0-9a-fi][0-9a-f]{15}-g[0-9]{1,6}-[0-9]{7}-[0-9]{7}\.parquet$')
    -- A column that a file lacks is null here, and these two no record lacks: the file is foreign.
    AND coalesce(cell_id, error(filename || ' lacks cell_id'))
    = regexp_extract(filename, '([0-9a-fi][0-9a-f]{15})-g[0-9]{1,6}-[0-9-]+\.parquet$', 1)
    AND coalesce(item, error(filename || ' lacks item'))
    BETWEEN TRY_CAST(regexp_extract(filename, '-([0-9]{7})-[0-9]{7}\.parquet$', 1) AS INTEGER)
    AND TRY_CAST(regexp_extract(filename, '-([0-9]{7})\.parquet$', 1) AS INTEGER);

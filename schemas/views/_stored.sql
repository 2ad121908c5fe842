-- _stored: one row per item, filter and repeat in the shard files, with all columns, for items that a file does not
-- own, too.
CREATE VIEW _stored AS
SELECT
    * EXCLUDE (score, correct),
    -- An infinite score or NaN is unknown, like a null, and so is in schema 6 the score of an item without an answer.
    CASE WHEN isfinite(score) AND (outcome IS NOT NULL OR failure IS NULL) THEN score END AS score,
    CASE WHEN isfinite(score) AND (outcome IS NOT NULL OR failure IS NULL) THEN correct END AS correct,
    TRY_CAST(regexp_extract(filename, '-g([0-9]{1,6})-[0-9-]+(?:-s[0-9a-f]{16})?\.parquet$', 1) AS INTEGER) AS generation
FROM {shards}
-- Only files with the name of a shard count, and only rows that the name covers: a copy beside a shard, or under
-- another name, must not double its rows. DuckDB decides the first condition per file.
WHERE
    regexp_matches(filename, '(?:^|/)[0-9a-fi][0-9a-f]{15}-g[0-9]{1,6}-[0-9]{7}-[0-9]{7}(?:-s[0-9a-f]{16})?\.parquet$')
    -- A column that a file lacks is null here. Every record has these two, so a file without them is foreign.
    AND coalesce(cell_id, error(filename || ' lacks cell_id'))
    = regexp_extract(filename, '([0-9a-fi][0-9a-f]{15})-g[0-9]{1,6}-[0-9-]+(?:-s[0-9a-f]{16})?\.parquet$', 1)
    AND coalesce(item, error(filename || ' lacks item'))
    BETWEEN TRY_CAST(regexp_extract(filename, '-([0-9]{7})-[0-9]{7}(?:-s[0-9a-f]{16})?\.parquet$', 1) AS INTEGER)
    AND TRY_CAST(regexp_extract(filename, '-([0-9]{7})(?:-s[0-9a-f]{16})?\.parquet$', 1) AS INTEGER);

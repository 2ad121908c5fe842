-- _pool_questions: one row: which questions of the pool count, 'every' (those that every candidate has a score for) or
-- 'any'. It is a table, so that a database file keeps the choice that it was made with.
CREATE VIEW _pool_questions AS
SELECT coalesce(CAST(getvariable('pool_questions') AS VARCHAR), 'every') AS counts;

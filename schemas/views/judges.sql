-- judges: one row per judge of the answers to one task. is_newest: of several judges of one name and task the one that
-- --judge NAME shows; an older one is shown by its judge_id.
CREATE VIEW judges AS
SELECT
    *,
    row_number() OVER (PARTITION BY judge, task ORDER BY made_at DESC, judge_id) = 1 AS is_newest
FROM {judges};

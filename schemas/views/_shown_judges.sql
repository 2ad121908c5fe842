-- _shown_judges: one row per task whose answers the chosen judge has judged: the newest of that name, or the one with that
-- judge_id. Empty where none is chosen: then the records' own verdicts are shown.
CREATE VIEW _shown_judges AS
SELECT *
FROM judges
WHERE (judge = {judge} AND is_newest) OR judge_id = {judge};

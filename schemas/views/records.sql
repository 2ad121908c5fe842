-- records: one row per item, filter and repeat of a cell, with its outcome and score by the rules of schemas.verdicts.
-- Does not read the columns with answers.
CREATE VIEW records AS
SELECT {key}, {judged}, generation
FROM {rows};

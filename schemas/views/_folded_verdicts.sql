-- _folded_verdicts: the rows of _folded_records that the matrix shows: primary filter, repeat 0. Parts without other
-- rows are read without a test of each row.
CREATE VIEW _folded_verdicts AS
SELECT *
FROM {primary_records}
UNION ALL
SELECT *
FROM _folded_others
WHERE is_primary;

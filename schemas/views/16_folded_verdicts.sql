-- _folded_verdicts: the rows of _folded_records that the matrix shows: primary filter, repeat 0. Parts that hold no others
-- are read without asking each row.
CREATE VIEW _folded_verdicts AS
SELECT *
FROM read_parquet({primary_records}, hive_partitioning = false)
UNION ALL
SELECT *
FROM read_parquet({mixed_records}, hive_partitioning = false)
WHERE is_primary
UNION ALL
SELECT part.*
FROM read_parquet({outdated_records}, hive_partitioning = false) AS part
ANTI JOIN _outdated
    ON part.cell_id = _outdated.cell_id
    AND part.generation < _outdated.generation
    AND part.item BETWEEN _outdated.first_item AND _outdated.last_item
WHERE part.is_primary;

-- _folded_others: the rows of _folded_records in parts that also hold outdated rows, or rows that the matrix leaves
-- out.
CREATE VIEW _folded_others AS
SELECT *
FROM {mixed_records}
UNION ALL
-- Parts with outdated items are apart, so that all others are read without a join.
SELECT part.*
FROM {outdated_records} AS part
ANTI JOIN _outdated
    ON part.cell_id = _outdated.cell_id
    AND part.generation < _outdated.generation
    AND part.item BETWEEN _outdated.first_item AND _outdated.last_item;

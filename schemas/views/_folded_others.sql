-- _folded_others: those rows of _folded_records whose parts also hold what the matrix does not show, or outdated rows.
CREATE VIEW _folded_others AS
SELECT *
FROM {mixed_records}
UNION ALL
-- Parts of which some items are outdated: apart, so that all others are read without a join.
SELECT part.*
FROM {outdated_records} AS part
ANTI JOIN _outdated
    ON part.cell_id = _outdated.cell_id
    AND part.generation < _outdated.generation
    AND part.item BETWEEN _outdated.first_item AND _outdated.last_item;

-- _scored: one row per cell with a scored item: the number of its scored items. The items of a compaction's part whose
-- rows all have a score need no look at the rows.
CREATE VIEW _scored AS
WITH whole AS (
    SELECT part, scored
    FROM {whole_parts}
),

by_row AS (
    SELECT cell_id
    FROM _folded
    ANTI JOIN whole USING (part)
    UNION
    SELECT cell_id
    FROM _shard_files
    WHERE NOT is_folded
    UNION
    SELECT cell_id
    FROM _outdated
)

-- All shards of a cell that a compaction holds are in one part.
SELECT cell_id, any_value(scored)::BIGINT AS scored
FROM _folded
INNER JOIN whole USING (part)
ANTI JOIN by_row USING (cell_id)
GROUP BY cell_id
UNION ALL
SELECT cell_id, count(score) AS scored
FROM matrix
SEMI JOIN by_row USING (cell_id)
GROUP BY cell_id
HAVING count(score) > 0;

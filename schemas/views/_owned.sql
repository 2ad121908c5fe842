-- _owned: one row per shard file that no compaction holds, with the items that it owns within its generation: those
-- beyond the last item of all shards that sort before it by name. These are all shards that were ever committed, so that
-- a compaction changes nothing: it holds the names of its shards. Empty (first_item > last_item) where it owns none.
CREATE VIEW _owned AS
WITH open_files AS (
    SELECT file, cell_id, generation, first_item, last_item
    FROM _shard_files
    WHERE NOT is_folded
),

ever AS (
    FROM open_files
    UNION ALL
    SELECT NULL AS file, cell_id, generation, first_item, last_item
    FROM _folded
    SEMI JOIN open_files USING (cell_id)
),

ordered AS (
    SELECT
        *,
        max(last_item) OVER (
            PARTITION BY cell_id, generation
            ORDER BY first_item, last_item
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS owned_before
    FROM ever
)

SELECT
    file,
    cell_id,
    generation,
    first_item AS file_first_item,
    greatest(first_item, owned_before + 1) AS first_item,
    last_item
FROM ordered
WHERE file IS NOT NULL;

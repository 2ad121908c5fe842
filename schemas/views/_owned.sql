-- _owned: one row per shard file that no compaction holds, with the items that it owns within its generation, as far as
-- shards that are not sparse decide it: those beyond the last item of all such shards that sort before it by name. These
-- are all shards that were ever committed, so that a compaction changes nothing: it holds the names of its shards. Empty
-- (first_item > last_item) where it owns none. Items that sparse shards own in its place are in _taken.
CREATE VIEW _owned AS
WITH ordered AS (
    SELECT
        *,
        max(CASE WHEN item_set = '' THEN last_item END) OVER (
            PARTITION BY cell_id, generation
            ORDER BY first_item, last_item, item_set = '', item_set
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS owned_before
    FROM _ever
)

SELECT
    file,
    cell_id,
    generation,
    item_set,
    first_item AS file_first_item,
    greatest(first_item, owned_before + 1) AS first_item,
    last_item
FROM ordered
WHERE file IS NOT NULL;

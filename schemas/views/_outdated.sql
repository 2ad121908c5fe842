-- _outdated: one row per range of a cell's items that a compaction holds and that a shard file owns in its place: rows
-- below this generation are replaced. Those are rows of a lower generation than the file's, and where the file came
-- later but sorts before the folded shard, those of its own: then generation is the next one. So it is for rows that a
-- retraction names. Empty in most lakes.
CREATE VIEW _outdated AS
-- What a shard file owns that is not sparse, around the items that sparse shards own in its place.
WITH edges AS (
    SELECT file, cell_id, generation, last_item, first_item - 1 AS item
    FROM _owned
    WHERE item_set = ''
    UNION ALL
    SELECT _owned.file, _owned.cell_id, _owned.generation, _owned.last_item, _taken.item
    FROM _owned
    INNER JOIN _taken
        ON _owned.file = _taken.file
        AND _taken.item BETWEEN _owned.first_item AND _owned.last_item
    WHERE _owned.item_set = ''
),

pieces AS (
    SELECT
        cell_id,
        generation,
        item + 1 AS first_item,
        lead(item, 1, last_item + 1) OVER (PARTITION BY file ORDER BY item) - 1 AS last_item
    FROM edges
)

SELECT DISTINCT
    _folded.part,
    _folded.cell_id,
    newer.generation,
    coalesce(listed.item, newer.first_item) AS first_item,
    coalesce(listed.item, newer.last_item) AS last_item
FROM _folded
INNER JOIN _shard_files AS newer
    ON _folded.cell_id = newer.cell_id
    AND _folded.generation < newer.generation
    AND _folded.first_item <= newer.last_item
    AND _folded.last_item >= newer.first_item
LEFT JOIN _item_sets AS listed
    ON newer.item_set = listed.item_set
    AND listed.item BETWEEN newer.first_item AND newer.last_item
WHERE NOT newer.is_folded AND (newer.item_set = '' OR listed.item IS NOT NULL)
UNION
SELECT
    _folded.part,
    _folded.cell_id,
    pieces.generation + 1 AS generation,
    pieces.first_item,
    pieces.last_item
FROM _folded
INNER JOIN pieces
    ON _folded.cell_id = pieces.cell_id
    AND _folded.generation = pieces.generation
    AND _folded.first_item <= pieces.last_item
    AND _folded.last_item >= pieces.first_item
WHERE pieces.first_item <= pieces.last_item
UNION
SELECT
    shared.later_part AS part,
    shared.cell_id,
    shared.generation + 1 AS generation,
    shared.item AS first_item,
    shared.item AS last_item
FROM _shared_items AS shared
INNER JOIN _owned
    ON shared.earlier_file = _owned.file
    AND shared.item >= _owned.first_item
ANTI JOIN _taken
    ON shared.earlier_file = _taken.file
    AND shared.item = _taken.item
WHERE shared.later_part IS NOT NULL AND shared.earlier_set <> ''
UNION
SELECT
    _folded.part,
    _folded.cell_id,
    _retracted.generation + 1 AS generation,
    _retracted.first_item,
    _retracted.last_item
FROM _folded
INNER JOIN _retracted
    ON _folded.cell_id = _retracted.cell_id
    AND _folded.generation <= _retracted.generation
    AND _folded.first_item <= _retracted.last_item
    AND _folded.last_item >= _retracted.first_item;

-- _shared_items: one row per item that two shards of one cell and generation hold, at least one of them sparse: the
-- shard that sorts first by name, and the later one. Empty where runs ask each item once.
CREATE VIEW _shared_items AS
-- A list is whole if its items have the digest in its name (schemas.identity.item_set_of). Without it nobody knows what
-- its shards share with others, and their rows would come twice: that is an error.
WITH whole AS (
    SELECT item_set
    FROM _item_sets
    GROUP BY item_set
    HAVING
        count(item) = count(*)
        AND left(sha256('[' || string_agg(item::VARCHAR, ',' ORDER BY item) || ']'), 16) = item_set
),

sparse_shards AS (
    SELECT *
    FROM _ever
    WHERE
        CASE
            WHEN item_set = '' THEN false
            WHEN item_set IN (SELECT item_set FROM whole) THEN true
            ELSE error('item_sets/' || item_set || '.parquet is missing or damaged: put a whole copy in its place')
        END
),

pairs AS (
    SELECT
        sparse.cell_id,
        sparse.generation,
        (sparse.first_item, sparse.last_item, sparse.item_set = '', sparse.item_set)
        < (other.first_item, other.last_item, other.item_set = '', other.item_set) AS sparse_first,
        CASE WHEN sparse_first THEN sparse.file ELSE other.file END AS earlier_file,
        CASE WHEN sparse_first THEN sparse.item_set ELSE other.item_set END AS earlier_set,
        CASE WHEN sparse_first THEN other.file ELSE sparse.file END AS later_file,
        CASE WHEN sparse_first THEN other.part ELSE sparse.part END AS later_part,
        CASE WHEN sparse_first THEN other.item_set ELSE sparse.item_set END AS later_set,
        greatest(sparse.first_item, other.first_item) AS first_item,
        least(sparse.last_item, other.last_item) AS last_item
    FROM sparse_shards AS sparse
    INNER JOIN _ever AS other
        ON sparse.cell_id = other.cell_id
        AND sparse.generation = other.generation
        AND sparse.first_item <= other.last_item
        AND sparse.last_item >= other.first_item
    WHERE
        -- Two sparse shards make one pair, and a shard none with itself.
        (other.item_set = '' OR sparse_first)
        AND (sparse.file IS NOT NULL OR other.file IS NOT NULL)
),

-- Lists are compared once, however many shards have them.
lists AS (
    SELECT DISTINCT earlier_set, later_set
    FROM pairs
),

common AS (
    SELECT lists.earlier_set, lists.later_set, one.item
    FROM lists
    INNER JOIN _item_sets AS one ON lists.earlier_set = one.item_set
    INNER JOIN _item_sets AS other ON lists.later_set = other.item_set AND one.item = other.item
    UNION ALL
    SELECT lists.earlier_set, lists.later_set, one.item
    FROM lists
    INNER JOIN _item_sets AS one ON lists.earlier_set || lists.later_set = one.item_set
)

SELECT
    pairs.cell_id,
    pairs.generation,
    pairs.earlier_file,
    pairs.earlier_set,
    pairs.later_file,
    pairs.later_part,
    common.item
FROM pairs
INNER JOIN common
    ON pairs.earlier_set = common.earlier_set
    AND pairs.later_set = common.later_set
    AND common.item BETWEEN pairs.first_item AND pairs.last_item;

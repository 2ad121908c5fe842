-- _questions_of: one row per item of the item tables that the pool's cells were asked: its question. Items of two tables
-- are one question if task, content_hash and right answer are equal; of equal items of one table the first meets the
-- first of another table, the second the second. An item whose right answer is unknown joins the only known one of its
-- content, and stays apart if there are several. An item without a text is its item_hash. item_number: its number among
-- the items of all these tables, which joins several times as fast as task, digest and item.
CREATE VIEW _questions_of AS
WITH asked AS (
    SELECT task, items_digest, asked_items, first_item_number, min(is_imported) AS is_imported
    FROM _pool_choice
    GROUP BY ALL
),

places AS (
    SELECT task, items_digest, first_item_number, is_imported, unnest(range(asked_items))::INTEGER AS item
    FROM asked
),

known AS (
    SELECT
        places.*,
        coalesce(content_hash, item_hash, concat(items_digest, ' ', places.item)) AS content,
        _gold(target, choices) AS own_gold
    FROM places
    LEFT JOIN items USING (task, items_digest, item)
),

golds AS (
    SELECT
        *,
        CASE
            WHEN own_gold IS NOT NULL THEN own_gold
            WHEN min(own_gold) OVER alike = max(own_gold) OVER alike THEN min(own_gold) OVER alike
        END AS gold
    FROM known
    WINDOW alike AS (PARTITION BY task, content)
),

numbered AS (
    SELECT
        task,
        items_digest,
        is_imported,
        first_item_number + item AS item_number,
        item,
        content,
        gold,
        -- An item that states its right answer comes before one that joins it.
        row_number() OVER (
            PARTITION BY task, items_digest, content, gold ORDER BY own_gold IS NULL, item
        ) AS occurrence
    FROM golds
)

SELECT
    task,
    items_digest,
    item,
    item_number,
    content,
    gold,
    occurrence,
    first_value({'is_imported': is_imported, 'item': item, 'items_digest': items_digest}) OVER same_question AS place,
    dense_rank() OVER (ORDER BY task, content, gold, occurrence)::INTEGER AS question_number
FROM numbered
WINDOW same_question AS (
    PARTITION BY task, content, gold, occurrence ORDER BY is_imported, item, items_digest
);

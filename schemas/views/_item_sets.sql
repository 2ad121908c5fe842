-- _item_sets: one row per item of a list that sparse shards name.
CREATE VIEW _item_sets AS
SELECT item_set, item
FROM {item_sets};

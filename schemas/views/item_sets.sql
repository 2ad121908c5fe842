-- item_sets: one row per item of a list that was asked in place of a whole task: the lists of sparse shards (view
-- shards), of cells that a run sampled (view runs), and of probe sets.
CREATE VIEW item_sets AS
FROM {item_sets};

-- probe_sets: one row per list of items that runs ask first of a task, chosen once: every model is asked the same.
CREATE VIEW probe_sets AS
FROM {probe_sets};

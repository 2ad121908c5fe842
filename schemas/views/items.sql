-- items: one row per document of a task, in the version of the task's data with this items_digest.
CREATE VIEW items AS
SELECT *
FROM {items};

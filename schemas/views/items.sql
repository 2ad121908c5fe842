-- items: one row per document of a task, in the version of the task's data that items_digest names.
CREATE VIEW items AS
SELECT *
FROM {items};

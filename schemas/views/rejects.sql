-- rejects: one row per row of a source that is wrong or contradictory, and was not imported.
CREATE VIEW rejects AS
SELECT
    import_id,
    imported_from,
    path,
    source_file,
    source_row,
    kind,
    message,
    model,
    task,
    source_key
FROM {rejects};

-- rejects: one row per row of a source that cannot be trusted, and is no record.
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

-- suspicions: one row per suspicion about a source, whose rows were imported unchanged.
CREATE VIEW suspicions AS
SELECT
    import_id,
    imported_from,
    path,
    source_file,
    kind,
    message,
    model,
    task,
    cell_id
FROM {suspicions};

-- suspicions: what looks wrong in a source and was imported as it is.
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

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
FROM {rejects} AS written
ANTI JOIN (SELECT run_id FROM _standing WHERE run_id IS NOT NULL) AS forgotten
    ON written.import_id = forgotten.run_id;

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
FROM {suspicions} AS written
ANTI JOIN (SELECT run_id FROM _standing WHERE run_id IS NOT NULL) AS forgotten
    ON written.import_id = forgotten.run_id;

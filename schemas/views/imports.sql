-- imports: one row per imported file: its origin, and the fate of its rows.
CREATE VIEW imports AS
SELECT
    import_id,
    imported_from,
    imported_at,
    format,
    format_version,
    path,
    sha256,
    bytes,
    licence,
    rows,
    records,
    known,
    folded,
    rejected
FROM {imports} AS written
ANTI JOIN (SELECT run_id FROM _standing WHERE run_id IS NOT NULL) AS forgotten
    ON written.import_id = forgotten.run_id;

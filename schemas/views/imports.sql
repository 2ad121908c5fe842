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
FROM {imports};

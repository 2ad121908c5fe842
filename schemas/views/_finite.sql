-- _finite: a text as a finite number, or null.
CREATE MACRO _finite(text) AS (CASE WHEN isfinite(TRY_CAST(text AS DOUBLE)) THEN TRY_CAST(text AS DOUBLE) END);

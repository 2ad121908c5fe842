-- _verdict: the value of a metric in a record's metrics, a JSON object; null if it is no finite number.
CREATE MACRO _verdict(metrics, metric) AS (
    CASE json_extract_string(metrics, metric)
        WHEN 'true' THEN 1.0
        WHEN 'false' THEN 0.0
        ELSE CASE
            WHEN isfinite(TRY_CAST(json_extract_string(metrics, metric) AS DOUBLE))
                THEN TRY_CAST(json_extract_string(metrics, metric) AS DOUBLE)
        END
    END
);

-- _verdict: the value of a metric in a record's metrics, a JSON object; null if it is no finite number. Characters that a
-- JSON path gives a meaning, even between quotes, find nothing.
CREATE MACRO _verdict(metrics, metric) AS (
    CASE json_extract_string(metrics, '$."' || regexp_replace(nullif(metric, ''), '["*\\]', '?', 'g') || '"')
        WHEN 'true' THEN 1.0
        WHEN 'false' THEN 0.0
        ELSE _finite(json_extract_string(metrics, '$."' || regexp_replace(nullif(metric, ''), '["*\\]', '?', 'g') || '"'))
    END
);

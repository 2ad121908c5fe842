-- _as_double: a HUGEINT below 2^103 as the nearest DOUBLE. Both addends are exact, so only their sum is rounded.
CREATE MACRO _as_double(units) AS (
    CAST(units // 1099511627776 AS BIGINT)::DOUBLE * 1099511627776.0 + CAST(units % 1099511627776 AS BIGINT)::DOUBLE
);

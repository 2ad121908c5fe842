-- _remainder: the part of a sum that _units leaves out: numbers that a BIGINT cannot hold, and what rounding takes from
-- small ones, which would lose more than nine digits. Sorted, so that the sum does not depend on the order of rows.
CREATE MACRO _remainder(x, scale) AS (
    coalesce(list_sum(list_sort(list_transform(
        list(x) FILTER (x <> 0 AND NOT abs(x) BETWEEN 1e9 / scale AND 9e18 / scale),
        lambda v: v - coalesce(TRY_CAST(v * scale AS BIGINT), 0) / scale
    ))), 0)
);

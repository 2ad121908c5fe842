-- _mean: the mean of the known numbers, which depends on nothing but them; null without any. See _units. Equal to
-- collectors.metrics.sums.mean to the last bit.
CREATE MACRO _mean(x, scale) AS (
    CASE WHEN count(x) > 0 THEN _units(x, scale) / (count(x) * scale) + _remainder(x, scale) / count(x) END
);

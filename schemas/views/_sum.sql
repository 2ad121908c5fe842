-- _sum: the sum of the known numbers, which depends on nothing but them; null without any. See _units.
CREATE MACRO _sum(x, scale) AS (
    CASE WHEN count(x) > 0 THEN _units(x, scale) / scale + _remainder(x, scale) END
);

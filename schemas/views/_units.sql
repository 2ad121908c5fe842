-- _units: the sum of numbers as a whole number of 1/scale: each is rounded once, and whole numbers add up exactly in any
-- order. scale is 1e12 for scores and seconds, 1e18 for USD. A sum of doubles is another one for every order of rows.
CREATE MACRO _units(x, scale) AS (
    _as_double(coalesce(sum(TRY_CAST(x * scale AS BIGINT)), 0))
);

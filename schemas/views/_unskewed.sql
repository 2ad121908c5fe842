-- _unskewed: the number x with g(x) = t, where g(x) = x + a·x² + a²·x³/3 + a/2 makes a skewed Student's statistic nearly
-- normal; a is the skewness / (3·sqrt(n)). P. Hall, JRSS B 54 (1992) 221.
CREATE MACRO _unskewed(t, a) AS (
    CASE WHEN abs(a) < 1e-6 THEN t ELSE (cbrt(1 + 3 * a * (t - a / 2)) - 1) / a END
);

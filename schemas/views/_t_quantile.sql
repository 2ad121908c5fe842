-- _t_quantile: the 97.5 % quantile of Student's t with `freedom` degrees of freedom, 4 or more: the first terms of its
-- expansion by 1/freedom (Abramowitz and Stegun, 26.7.5), within 1/1,000 from 4 on and 1/100,000 from 9 on.
CREATE MACRO _t_quantile(freedom) AS (
    1.959963984540054 + 2.3722712 / freedom + 2.8224986 / pow(freedom, 2) + 2.5558497 / pow(freedom, 3)
    + 1.5895341 / pow(freedom, 4)
);

-- _named_as: the name of a candidate before its version: the model, at an effort of thinking.
CREATE MACRO _named_as(model, effort) AS (
    CASE WHEN effort IS NULL THEN model ELSE concat(model, '[', effort, ']') END
);

-- _samples: whether a cell's settings sample its answers: asked again, a question may get another one.
CREATE MACRO _samples(decoding, generation_config) AS (
    coalesce(TRY_CAST(decoding ->> '$.temperature' AS DOUBLE) > 0, false)
    OR coalesce(TRY_CAST(generation_config ->> '$.temperature' AS DOUBLE) > 0, false)
    OR coalesce((decoding ->> '$.do_sample') = 'true', false)
);

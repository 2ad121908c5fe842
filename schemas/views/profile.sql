-- profile: one row per run, model and stage: the seconds that the run's committed shards spent in it. Stages of a
-- worker overlap (it judges one shard while its engine answers the next), so their sum is longer than the run.
CREATE VIEW profile AS
WITH stages AS (
    SELECT shards.run_id, cells.model, json_extract(facts, '$.stages') AS seconds
    FROM shards
    INNER JOIN cells USING (cell_id)
    WHERE json_extract(facts, '$.stages') IS NOT NULL
),

named AS (
    SELECT run_id, model, unnest(json_keys(seconds)) AS stage, seconds
    FROM stages
)

SELECT
    run_id,
    model,
    stage,
    _sum(json_extract(seconds, '$.' || stage)::DOUBLE, 1e12) AS seconds,
    count(*) AS shards
FROM named
GROUP BY run_id, model, stage;

-- throughput: one row per cell with at least one collected item: the speed of its answers. Rates are over the seconds
-- in which the engine worked, summed over the cell's committed shards; items that were collected twice count twice.
-- generated_tokens_per_s is null if the task scores choices, because then completion tokens are not generated, if a
-- count is unknown, and if items were collected twice. Means are over the items with a time, of the primary filter and
-- repeat 0; a latency is that of one of several concurrent requests (concurrency). For one model on one GPU add up its
-- rows: sum(items) / sum(engine_seconds). The view shards has the GPU of each shard.
CREATE VIEW throughput AS
WITH worked AS (
    SELECT
        cell_id,
        string_agg(DISTINCT engine, ', ' ORDER BY engine) AS engine,
        string_agg(DISTINCT gpu, ', ' ORDER BY gpu) AS gpu,
        count(*) AS shards,
        sum(
            CASE WHEN item_set IS NULL THEN last_item - first_item + 1 ELSE TRY_CAST(facts ->> '$.items' AS BIGINT) END
        )::BIGINT AS items,
        sum(requests)::BIGINT AS requests,
        sum(engine_tokens)::BIGINT AS engine_tokens,
        _sum(engine_seconds, 1e12) AS engine_seconds,
        _sum(wall_seconds, 1e12) AS wall_seconds,
        _sum(load_seconds, 1e12) AS load_seconds,
        count(engine_tokens) = count(*) AS all_tokened,
        _sum(concurrency * engine_seconds, 1e12)
        / nullif(_sum(CASE WHEN concurrency IS NOT NULL THEN engine_seconds END, 1e12), 0)
            AS concurrency
    FROM shards
    WHERE engine_seconds IS NOT NULL
    GROUP BY cell_id
),

answered AS (
    SELECT
        records.cell_id,
        count(*) AS attempted,
        count(latency_s) AS timed_items,
        _mean(latency_s, 1e12) AS mean_latency_s,
        _mean(ttft_s, 1e12) AS mean_ttft_s,
        sum(completion_tokens)::BIGINT AS completion_tokens,
        -- An item with a too long prompt was not asked, so it has no tokens.
        bool_and(completion_tokens IS NOT NULL OR coalesce(failure = 'prompt_too_long', false)) AS all_counted
    FROM records
    INNER JOIN cells ON records.cell_id = cells.cell_id AND records.filter = cells.filter
    WHERE repeat = 0
    GROUP BY records.cell_id
)

SELECT
    cells.task,
    cells.model,
    worked.engine,
    worked.gpu,
    worked.items,
    worked.engine_seconds,
    worked.items / nullif(worked.engine_seconds, 0) AS items_per_s,
    CASE WHEN all_tokened THEN worked.engine_tokens / nullif(worked.engine_seconds, 0) END AS engine_tokens_per_s,
    CASE
        WHEN cells.output_type = 'generate_until' AND all_counted AND worked.items = answered.attempted
            THEN answered.completion_tokens / nullif(worked.engine_seconds, 0)
    END AS generated_tokens_per_s,
    answered.mean_latency_s,
    answered.mean_ttft_s,
    answered.timed_items,
    worked.concurrency,
    worked.shards,
    worked.requests,
    worked.wall_seconds,
    worked.load_seconds,
    cells.num_fewshot,
    cells.chat_template,
    cells.prompting,
    cells.items_digest,
    cells.revision,
    cells.dtype,
    cells.quantization,
    cells.imported_from,
    cells.cell_id
FROM answered
INNER JOIN cells USING (cell_id)
LEFT JOIN worked USING (cell_id);

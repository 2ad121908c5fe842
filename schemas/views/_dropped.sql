-- _dropped: one row per task and model whose cells have no score yet, and per task and candidate that has cells with
-- scores and none in the pool of its task. name: the model or candidate, with its version beside another one in the
-- pool. why: 'unscored', 'sampled', 'settings' or 'metric'. differs: the settings in which its best cell differs from the
-- pool, where these had to be equal, each as name=value.
CREATE VIEW _dropped AS
WITH others AS MATERIALIZED (
    SELECT *
    FROM _considered
    ANTI JOIN _pool_choice USING (cell_id)
),

-- Candidates of models that have other cells: mostly few.
rivals AS MATERIALIZED (
    SELECT task, model, effort, revision, quantization
    FROM _pool_cells
    SEMI JOIN others USING (task, model)
),

outside AS MATERIALIZED (
    SELECT
        task,
        model,
        effort,
        revision,
        quantization,
        arg_min(cell_id, (-scored, cell_id)) AS cell_id,
        bool_and(is_sparse) AS is_sampled
    FROM others
    WHERE scored IS NOT NULL AND NOT EXISTS (
        FROM rivals
        WHERE rivals.task = others.task
            AND rivals.model = others.model
            AND rivals.effort IS NOT DISTINCT FROM others.effort
            AND (
                (others.imported_from IS NOT NULL AND others.revision IS NULL)
                OR (
                    rivals.revision IS NOT DISTINCT FROM others.revision
                    AND rivals.quantization IS NOT DISTINCT FROM others.quantization
                )
            )
    )
    GROUP BY ALL
),

compared_cells AS (
    SELECT cell_id FROM outside
    UNION ALL
    SELECT min(cell_id) AS cell_id FROM _pool_choice SEMI JOIN outside USING (task) GROUP BY task
),

settings AS MATERIALIZED (
    SELECT
        cells.cell_id,
        cells.task,
        _same_settings(
            dtype, prompting, num_fewshot, chat_template, system_prompt, decoding, max_length, engine, imported_from,
            quantization
        ) AS own
    FROM cells
    SEMI JOIN (FROM compared_cells) AS of_both USING (cell_id)
),

compared AS (
    SELECT
        outside.*,
        list_filter(mine.own, lambda pair: of_pool.own IS NOT NULL AND NOT list_contains(of_pool.own, pair)) AS differs
    FROM outside
    INNER JOIN settings AS mine ON outside.cell_id = mine.cell_id
    LEFT JOIN (SELECT task, own FROM settings SEMI JOIN _pool_choice USING (cell_id)) AS of_pool
        ON outside.task = of_pool.task
)

SELECT task, model AS name, 'unscored' AS why, []::VARCHAR[] AS differs
FROM (SELECT DISTINCT task, model FROM others WHERE scored IS NULL)
ANTI JOIN rivals USING (task, model)
ANTI JOIN (SELECT task, model FROM others WHERE scored IS NOT NULL) AS with_scores USING (task, model)
UNION ALL
SELECT
    task,
    concat(
        _named_as(model, effort),
        CASE
            WHEN (task, model) IN (SELECT (task, model) FROM rivals)
                THEN '@' || coalesce(quantization, left(revision, 16), 'unknown')
        END
    ) AS name,
    CASE
        WHEN is_sampled
            AND coalesce(CAST(getvariable('pool_sparse') AS VARCHAR), 'apart') = 'apart'
            AND task NOT IN (SELECT task FROM _pool_choice WHERE is_sparse)
            THEN 'sampled'
        WHEN len(differs) > 0 THEN 'settings'
        ELSE 'metric'
    END AS why,
    differs
FROM compared;

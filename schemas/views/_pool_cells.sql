-- _pool_cells: one row per task and candidate of the pool: the cell that stands for it, and the candidate's name.
-- A candidate is a model at a revision in a quantization (version); its other settings may differ from those of other
-- candidates. Records of others that name no revision belong to the only version that the pool has of the model, if
-- there is exactly one. A cell without a scored item is no candidate.
-- Of several cells of a candidate the one counts whose prompting most candidates share, then the one with most scored
-- items, then the newest. Cells are compared under the metric of most candidates; imported scores in [0, 1] meet every
-- metric in that range, because sources name metrics in their own ways.
-- schemas.views.PoolChoice sets the variables: pool_cells, the cells to choose among (null: all); pool_same, names of
-- settings that all must share.
CREATE VIEW _pool_cells AS
WITH eligible AS (
    SELECT
        cells.*,
        scored,
        concat_ws(' ', coalesce(revision, '-'), coalesce(quantization, '-')) AS own_version,
        imported_from IS NULL OR revision IS NOT NULL AS is_known,
        CASE
            WHEN imported_from IS NULL OR correct_threshold IS NULL
                THEN concat_ws(' ', metric, higher_is_better, correct_threshold IS NOT NULL)
        END AS comparison,
        array_to_string(
            list_filter(
                [
                    concat('dtype=', dtype),
                    concat('prompting=', prompting),
                    concat('num_fewshot=', num_fewshot),
                    concat('chat_template=', chat_template),
                    concat('system_prompt=', system_prompt),
                    concat('decoding=', decoding),
                    concat('max_length=', max_length),
                    concat('engine=', engine),
                    concat('imported_from=', imported_from),
                    concat('quantization=', quantization)
                ],
                lambda pair: list_contains(CAST(getvariable('pool_same') AS VARCHAR[]), split_part(pair, '=', 1))
            ),
            ' '
        ) AS settings
    FROM cells
    INNER JOIN _scored USING (cell_id)
    WHERE CAST(getvariable('pool_cells') AS VARCHAR[]) IS NULL
        OR list_contains(CAST(getvariable('pool_cells') AS VARCHAR[]), cell_id)
),

versioned AS (
    SELECT
        * EXCLUDE (own_version, is_known),
        CASE
            WHEN is_known THEN own_version
            WHEN min(own_version) FILTER (is_known) OVER of_model = max(own_version) FILTER (is_known) OVER of_model
                THEN min(own_version) FILTER (is_known) OVER of_model
            ELSE ''
        END AS version
    FROM eligible
    WINDOW of_model AS (PARTITION BY model)
),

-- One metric, and one combination of the settings that must be equal, for each task.
metrics AS (
    SELECT task, comparison AS chosen
    FROM (
        SELECT task, comparison, count(DISTINCT (model, version)) AS candidates, sum(scored) AS scored
        FROM versioned
        GROUP BY ALL
    )
    QUALIFY row_number() OVER (
        PARTITION BY task ORDER BY comparison IS NULL, candidates DESC, scored DESC, comparison
    ) = 1
),

compared AS (
    SELECT versioned.*
    FROM versioned
    INNER JOIN metrics USING (task)
    WHERE comparison IS NULL OR comparison = chosen
),

same AS (
    SELECT task, settings
    FROM (
        SELECT task, settings, count(DISTINCT (model, version)) AS candidates, sum(scored) AS scored
        FROM compared
        GROUP BY ALL
    )
    QUALIFY row_number() OVER (PARTITION BY task ORDER BY candidates DESC, scored DESC, settings) = 1
),

alike AS (
    SELECT compared.*
    FROM compared
    INNER JOIN same USING (task, settings)
),

shared AS (
    SELECT task, prompting, count(DISTINCT (model, version)) AS sharing
    FROM alike
    GROUP BY ALL
),

chosen AS (
    SELECT alike.*, count(*) OVER candidate_cells AS cells
    FROM alike
    INNER JOIN shared USING (task, prompting)
    WINDOW candidate_cells AS (PARTITION BY task, model, version)
    QUALIFY row_number() OVER (
        PARTITION BY task, model, version
        ORDER BY sharing DESC, scored DESC, run_id DESC, cell_id DESC
    ) = 1
)

SELECT
    chosen.* EXCLUDE (comparison, settings),
    CASE
        WHEN count(DISTINCT version) OVER of_model = 1 THEN model
        ELSE concat(model, '@', CASE WHEN version = '' THEN 'unknown' ELSE
            CASE
                WHEN count(DISTINCT revision) OVER of_model > 1 AND quantization IS NOT NULL
                    THEN concat(left(revision, 16), '-', quantization)
                WHEN count(DISTINCT revision) OVER of_model > 1 THEN left(revision, 16)
                ELSE coalesce(quantization, 'whole')
            END END)
    END AS candidate
FROM chosen
WINDOW of_model AS (PARTITION BY model);

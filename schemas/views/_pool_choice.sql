-- _pool_choice: one row per task and candidate of the pool: the cell that stands for it, and the candidate's name.
-- A candidate is a model at one effort of thinking (named_as), at a revision in a quantization (version); its other
-- settings may differ from those of other candidates. Records of others that name no revision belong to the only version
-- that the pool has of the model, if there is exactly one. A cell without a scored item is no candidate.
-- Of several cells of a candidate the one counts whose prompting most candidates share, then the one with most scored
-- items, then the newest. Cells are compared under the metric of most candidates; imported scores in [0, 1] meet every
-- metric in that range, because sources name metrics in their own ways.
-- Where a task has cells that were meant to be asked whole, those that runs sampled are no candidates beside them, unless
-- too many candidates would be lost for too few questions: all candidates × the questions of a sampled one must be
-- at least the whole ones × theirs (view _left_out has the same exchange). Their questions: as many as half of these
-- cells have a score for.
-- A cell that asked a part of another one's items several times (view _drawn_cells) is no candidate beside it.
-- schemas.views.PoolChoice sets the variables: pool_cells, the cells to choose among (null: all); pool_same, names of
-- settings that all must share; pool_sparse: 'mixed' lets sampled cells in beside whole ones.
-- asked_items: the items of its item table that any candidate was asked. first_item_number: the first of them has this
-- number among those of all tables, and the others follow.
-- The choice is made over few columns, and over numbers in place of names: the rows of 102,000 cells are wide. The view
-- _pool_cells has their other columns.
CREATE VIEW _pool_choice AS
WITH repeated AS (
    SELECT DISTINCT drawn.cell_id
    FROM _drawn_cells AS drawn
    INNER JOIN _considered AS once ON drawn.member_cell_id = once.cell_id
    WHERE once.scored IS NOT NULL
),

given AS MATERIALIZED (
    SELECT
        cell_id,
        task,
        scored,
        is_sparse,
        model,
        effort,
        revision,
        quantization,
        imported_from IS NULL OR revision IS NOT NULL AS is_known,
        prompting,
        started_at,
        run_id,
        items_digest,
        planned_items,
        imported_from IS NOT NULL AS is_imported,
        (NOT list_contains(CAST(getvariable('pool_same') AS VARCHAR[]), 'dtype') OR dtype IS NOT NULL)
        AND (NOT list_contains(CAST(getvariable('pool_same') AS VARCHAR[]), 'engine') OR engine IS NOT NULL)
        AND (NOT list_contains(CAST(getvariable('pool_same') AS VARCHAR[]), 'num_fewshot') OR num_fewshot IS NOT NULL)
            AS has_settings,
        CASE
            WHEN imported_from IS NULL OR correct_threshold IS NULL OR NOT higher_is_better
                THEN concat_ws(' ', metric, higher_is_better, correct_threshold IS NOT NULL)
        END AS comparison,
        CASE
            WHEN len(CAST(getvariable('pool_same') AS VARCHAR[])) > 0
                THEN array_to_string(
                    _same_settings(
                        dtype, prompting, num_fewshot, chat_template, system_prompt, decoding, max_length, engine,
                        imported_from, quantization
                    ),
                    ' '
                )
            ELSE ''
        END AS settings
    FROM _considered
    ANTI JOIN repeated USING (cell_id)
    WHERE scored IS NOT NULL
),

-- Tasks whose sampled cells are no candidates.
apart AS (
    SELECT task
    FROM given
    SEMI JOIN (SELECT DISTINCT task FROM given WHERE is_sparse) AS sampled USING (task)
    WHERE coalesce(CAST(getvariable('pool_sparse') AS VARCHAR), 'apart') = 'apart'
    GROUP BY task
    HAVING count(DISTINCT (model, effort)) FILTER (NOT is_sparse) * -quantile_disc(-scored, 0.5) FILTER (NOT is_sparse)
        > count(DISTINCT (model, effort)) * -quantile_disc(-scored, 0.5) FILTER (is_sparse)
),

eligible AS MATERIALIZED (
    SELECT *
    FROM given
    WHERE NOT is_sparse OR task NOT IN (FROM apart)
),

models AS MATERIALIZED (
    SELECT
        *,
        _named_as(model, effort) AS named_as,
        concat_ws(' ', coalesce(revision, '-'), coalesce(quantization, '-')) AS own_version
    FROM (SELECT DISTINCT model, effort, revision, quantization, is_known FROM eligible)
),

-- The least and the greatest known version of each model that has an unknown one, and of each of its quantizations.
known AS (
    SELECT named_as, quantization, min(own_version) AS least, max(own_version) AS greatest
    FROM models
    WHERE is_known AND named_as IN (SELECT named_as FROM models WHERE NOT is_known)
    GROUP BY GROUPING SETS ((named_as), (named_as, quantization))
    HAVING quantization IS NOT NULL OR grouping(quantization) = 1
),

versioned AS MATERIALIZED (
    SELECT
        *,
        dense_rank() OVER (ORDER BY named_as, version)::INTEGER AS number
    FROM (
        SELECT
            models.*,
            CASE
                WHEN is_known THEN own_version
                WHEN least = greatest THEN least
                WHEN models.quantization IS NOT NULL THEN own_version
                ELSE ''
            END AS version
        FROM models
        LEFT JOIN known
            ON NOT is_known
            AND models.named_as = known.named_as
            AND models.quantization IS NOT DISTINCT FROM known.quantization
    )
),

numbered AS MATERIALIZED (
    SELECT eligible.* EXCLUDE (model, effort, revision, quantization, is_known), number
    FROM eligible
    INNER JOIN versioned
        ON eligible.model = versioned.model
        AND eligible.revision IS NOT DISTINCT FROM versioned.revision
        AND eligible.effort IS NOT DISTINCT FROM versioned.effort
        AND eligible.quantization IS NOT DISTINCT FROM versioned.quantization
        AND eligible.is_known = versioned.is_known
),

-- One metric, and one combination of the settings that must be equal, for each task.
metrics AS (
    SELECT task, comparison AS chosen, row_number() OVER ()::BIGINT << 32 AS task_number
    FROM (
        SELECT task, comparison, count(DISTINCT number) AS candidates, sum(scored) AS scored
        FROM numbered
        GROUP BY ALL
    )
    QUALIFY row_number() OVER (
        PARTITION BY task ORDER BY comparison IS NULL, candidates DESC, scored DESC, comparison
    ) = 1
),

compared AS (
    SELECT numbered.*, task_number | number AS place
    FROM numbered
    INNER JOIN metrics USING (task)
    WHERE comparison = chosen OR (comparison IS NULL AND coalesce(chosen LIKE '% true true', true))
),

same AS (
    SELECT task, settings
    FROM (
        SELECT task, settings, has_settings, count(DISTINCT number) AS candidates, sum(scored) AS scored
        FROM compared
        GROUP BY ALL
    )
    QUALIFY row_number() OVER (
        PARTITION BY task ORDER BY NOT has_settings, candidates DESC, scored DESC, settings
    ) = 1
),

alike AS MATERIALIZED (
    SELECT compared.*
    FROM compared
    INNER JOIN same USING (task, settings)
),

-- place: a number of the candidate and the task.
of_candidate AS MATERIALIZED (
    SELECT place, count(*) AS cells
    FROM alike
    GROUP BY place
),

several AS MATERIALIZED (
    SELECT alike.*, cells
    FROM alike
    INNER JOIN of_candidate USING (place)
    WHERE cells > 1
),

shared AS (
    SELECT task, prompting, count(DISTINCT number) AS sharing
    FROM alike
    SEMI JOIN (SELECT DISTINCT task FROM several) AS tasks USING (task)
    GROUP BY ALL
),

chosen AS MATERIALIZED (
    SELECT *, 1::BIGINT AS cells
    FROM alike
    ANTI JOIN several USING (place)
    UNION ALL
    SELECT several.*
    FROM several
    INNER JOIN shared USING (task, prompting)
    QUALIFY row_number() OVER (
        PARTITION BY place
        ORDER BY sharing DESC, scored DESC, started_at DESC, run_id DESC, cell_id DESC
    ) = 1
),

item_tables AS (
    SELECT
        task,
        items_digest,
        max(planned_items) AS asked_items,
        (sum(max(planned_items)) OVER (ORDER BY task, items_digest) - max(planned_items))::BIGINT AS first_item_number
    FROM chosen
    GROUP BY task, items_digest
),

-- What tells the versions of a model apart: as little as there is need for.
versions AS MATERIALIZED (
    SELECT DISTINCT number, named_as, version
    FROM versioned
    SEMI JOIN chosen USING (number)
),

named AS (
    SELECT number, version, named_as, named_as AS short_name
    FROM versions
    SEMI JOIN (SELECT named_as FROM versions GROUP BY named_as HAVING count(*) = 1) AS only_ones USING (named_as)
    UNION ALL
    SELECT
        number,
        version,
        named_as,
        CASE
            WHEN version = '' THEN concat(named_as, '@unknown')
            ELSE concat(named_as, '@', concat_ws(
                '-',
                CASE WHEN count(DISTINCT version_revision) OVER of_model > 1 THEN left(version_revision, 16) END,
                CASE
                    WHEN version_quantization <> '-' THEN version_quantization
                    WHEN count(DISTINCT version_revision) OVER of_model = 1 THEN 'whole'
                END
            ))
        END AS short_name
    FROM (
        SELECT
            number,
            named_as,
            version,
            regexp_extract(version, '(?s)^(.*) ([^ ]*)$', 1) AS version_revision,
            regexp_extract(version, '(?s)^(.*) ([^ ]*)$', 2) AS version_quantization
        FROM versions
        SEMI JOIN (SELECT named_as FROM versions GROUP BY named_as HAVING count(*) > 1) AS others USING (named_as)
    )
    WINDOW of_model AS (PARTITION BY named_as)
),

candidates_of AS (
    SELECT
        number,
        version,
        -- Two versions whose revisions begin alike, or a model that is called like another's version.
        CASE
            WHEN count(*) OVER (PARTITION BY short_name) = 1 THEN short_name
            ELSE concat(short_name, '~', left(md5(concat(named_as, chr(10), version)), 8))
        END AS candidate
    FROM named
)

SELECT
    cell_id,
    task,
    items_digest,
    is_imported,
    planned_items,
    asked_items,
    first_item_number,
    scored,
    is_sparse,
    version,
    cells,
    candidate
FROM chosen
INNER JOIN candidates_of USING (number)
INNER JOIN item_tables USING (task, items_digest);

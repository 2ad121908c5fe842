-- runs: one row per run, with its plan and its end. planned_items: over all its cells. outcome: null while the run is
-- at work, and for good if it was killed.
CREATE VIEW runs AS
WITH planned AS (
    SELECT
        run_id,
        min(started_at) AS started_at,
        count(DISTINCT cell_id) AS cells,
        count(DISTINCT model) AS models,
        count(DISTINCT task) AS tasks,
        sum(planned_items)::BIGINT AS planned_items,
        max(generation) AS generation,
        min(engine) AS engine,
        min(versions) AS versions,
        min(config) AS config
    FROM _run_cells
    GROUP BY run_id
),

ends AS (
    SELECT
        run_id,
        max(ended_at) AS ended_at,
        max_by(outcome, {'at': ended_at, 'outcome': outcome, 'message': message}) AS outcome,
        max_by(message, {'at': ended_at, 'outcome': outcome, 'message': message}) AS message
    FROM {run_ends}
    GROUP BY run_id
)

SELECT
    planned.*,
    ends.ended_at,
    ends.outcome,
    ends.message
FROM planned
LEFT JOIN ends USING (run_id);

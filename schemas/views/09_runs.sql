-- runs: one row per run, as it was planned. planned_items: over all its cells.
CREATE VIEW runs AS
SELECT
    run_id,
    min(started_at) AS started_at,
    count(DISTINCT cell_id) AS cells,
    count(DISTINCT model) AS models,
    count(DISTINCT task) AS tasks,
    sum(planned_items)::BIGINT AS planned_items,
    max(generation) AS generation,
    min(engine) AS engine,
    any_value(versions) AS versions,
    any_value(config) AS config
FROM _run_cells
GROUP BY run_id;

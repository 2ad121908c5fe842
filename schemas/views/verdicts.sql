-- verdicts: one row per judge, item, filter and repeat of a cell, for answers that count: of the newest generation, and
-- not forgotten. The verdict of the task's own judge, made when the answer was collected, is in records.
CREATE VIEW verdicts AS
SELECT written.*
FROM {verdicts} AS written
SEMI JOIN (SELECT DISTINCT cell_id, generation, item FROM {rows}) AS counted
    ON written.cell_id = counted.cell_id
    AND written.generation = counted.generation
    AND written.item = counted.item
QUALIFY row_number() OVER (
    PARTITION BY
        written.judge_id,
        written.cell_id,
        written.generation,
        written.item,
        written.filter,
        written.repeat,
        written.against
) = 1;

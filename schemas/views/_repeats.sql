-- _repeats: one row per item of a cell that was asked several times: the number of its answers. Empty in most lakes:
-- statistics of the files tell that no row has a repeat.
CREATE VIEW _repeats AS
SELECT cell_id, item, max(repeat)::BIGINT AS answers
FROM (
    SELECT cell_id, item, repeat FROM _open_verdicts WHERE repeat > 0
    UNION ALL
    SELECT cell_id, item, repeat FROM _folded_others WHERE repeat > 0
)
GROUP BY cell_id, item;

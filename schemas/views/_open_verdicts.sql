-- _open_verdicts: the rows of _open_rows without the columns with answers. Where thousands of small shards are open, it
-- is a table, because each file costs more to open than its rows to read, and a query names them a dozen times.
CREATE VIEW _open_verdicts AS
SELECT * EXCLUDE ({answers})
FROM _open_rows;

-- forecasts: one row per forecast, model and task (item is null), and per item that the model did not answer. A forecast
-- is an expectation, never a record: matrix, records, pool, oracle and leaderboard show none. Of a forecast whose fit is
-- not there yet, because it was interrupted, nothing shows.
CREATE VIEW forecasts AS
SELECT *
FROM {forecasts}
SEMI JOIN {forecast_fits} AS fits USING (forecast);

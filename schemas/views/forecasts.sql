-- forecasts: one row per forecast, model and task (item is null), and per item that the model did not answer. A forecast
-- is an expectation, never a record: matrix, records, pool, oracle and leaderboard show none. Of a forecast whose fit is
-- not there yet, because it was interrupted, nothing shows; nor does a value that is no number, as a foreign part may
-- have (`forecast.py --check` names the part).
CREATE VIEW forecasts AS
SELECT *
FROM {forecasts}
SEMI JOIN {forecast_fits} AS fits USING (forecast)
WHERE isfinite(value) AND coalesce(isfinite(low) AND isfinite(high), item IS NOT NULL);

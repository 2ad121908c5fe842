-- splits: one row per question, or candidate, of a stored division into training and test (route.py split).
CREATE VIEW splits AS
FROM {splits};

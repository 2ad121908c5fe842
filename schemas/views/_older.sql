-- _older: one row per item, filter and repeat that was replaced before the newest compaction.
CREATE VIEW _older AS
SELECT *
FROM {older};

-- _question_names: one row per question of a task: its id, and its place in one of its item tables.
CREATE VIEW _question_names AS
SELECT
    task,
    question_number,
    left(md5(concat_ws(' ', any_value(content), any_value(occurrence), any_value(gold))), 16) AS question,
    any_value(gold) AS gold,
    any_value(occurrence) AS occurrence,
    any_value(place).items_digest AS items_digest,
    any_value(place).item AS item
FROM _questions_of
GROUP BY task, question_number;

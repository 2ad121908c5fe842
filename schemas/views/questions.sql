-- questions: one row per task and question that a candidate of the pool has a score for. A question is its content (text,
-- choices) and right answer, in whatever item table, few-shot setting, limit or import it stands. Equal questions of one
-- table are several: occurrence. question: an id that depends on nothing else. scored: candidates with a score, of those
-- that are not left out. is_counted: whether it is in the view pool: every candidate has a score for it, or with
-- --questions any one has. items_digest and item: its place in one of its item tables.
CREATE VIEW questions AS
WITH asked AS (
    SELECT question_number, count(score) AS scored
    FROM _pool_rows
    ANTI JOIN _left_out USING (task, cell_id)
    GROUP BY question_number
),

sizes AS (
    SELECT task, count(*) AS candidates
    FROM _pool_choice
    ANTI JOIN _left_out USING (task, cell_id)
    GROUP BY task
)

SELECT
    names.task,
    names.question,
    items.prompt,
    items.choices,
    names.gold,
    items.subject,
    items.content_hash,
    names.occurrence,
    asked.scored,
    asked.scored = sizes.candidates OR (SELECT counts FROM _pool_questions) = 'any' AS is_counted,
    names.items_digest,
    names.item,
    names.question_number
FROM _question_names AS names
INNER JOIN asked USING (question_number)
INNER JOIN sizes USING (task)
LEFT JOIN items
    ON names.task = items.task
    AND names.items_digest = items.items_digest
    AND names.item = items.item
WHERE asked.scored > 0;

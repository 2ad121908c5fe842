-- hidden: one row per task: what its verdicts hide. Answers that were cut off (truncated), refused or filtered, or in which
-- no filter of the task read anything (unparsed: lm-eval's [invalid], or nothing at all); that two filters read and judged
-- differently; and items on which most of the strongest quarter of the models, four at least, give one same wrong answer
-- (doubted): their gold may be wrong. unparsed, and so doubted, is null where the task scores choices.
CREATE VIEW hidden AS
WITH asked AS (
    SELECT task, cell_id, items_digest, item, outcome, score, correct FROM matrix
),

read AS (
    SELECT
        records.cell_id,
        records.item,
        max(responses.filtered) FILTER (records.filter = cells.filter) AS answer,
        bool_and(responses.filtered IS NULL OR regexp_matches(responses.filtered, '^\[(?:"(?:\[invalid\]|\s*)"(?:, )?)*\]$'))
            AS is_unparsed,
        count(DISTINCT records.score) > 1 AS is_contested
    FROM records
    INNER JOIN (SELECT cell_id, filter, output_type FROM cells WHERE output_type = 'generate_until') AS cells USING (cell_id)
    LEFT JOIN responses
        ON records.cell_id = responses.cell_id
        AND records.generation = responses.generation
        AND records.item = responses.item
        AND records.filter = responses.filter
        AND records.repeat = responses.repeat
    WHERE records.repeat = 0 AND records.outcome NOT IN ('engine', 'judge', 'store')
    GROUP BY records.cell_id, records.item
),

strongest AS (
    SELECT task, cell_id
    FROM asked
    GROUP BY task, cell_id
    QUALIFY row_number() OVER (PARTITION BY task ORDER BY avg(score) DESC NULLS LAST, cell_id)
        <= greatest(4, ceil(count(*) OVER (PARTITION BY task) / 4.0))
),

wrong AS (
    SELECT asked.task, asked.items_digest, asked.item, answer, count(*) AS models
    FROM asked
    SEMI JOIN strongest USING (cell_id)
    INNER JOIN read USING (cell_id, item)
    WHERE NOT correct AND NOT is_unparsed
    GROUP BY ALL
),

doubted AS (
    SELECT wrong.task, count(DISTINCT (items_digest, item)) AS items
    FROM wrong
    INNER JOIN (SELECT task, count(*) AS models FROM strongest GROUP BY task) AS strong USING (task)
    WHERE wrong.models >= 3 AND wrong.models > strong.models / 2
    GROUP BY ALL
)

SELECT
    asked.task,
    count(*) AS answers,
    count(*) FILTER (outcome = 'truncated') AS truncated,
    count(*) FILTER (outcome = 'refused') AS refused,
    count(*) FILTER (outcome = 'filtered') AS filtered,
    count(*) FILTER (outcome = 'empty') AS empty,
    CASE WHEN count(read.cell_id) > 0 THEN count(*) FILTER (is_unparsed AND outcome <> 'empty') END AS unparsed,
    CASE WHEN count(read.cell_id) > 0 THEN count(*) FILTER (is_contested) END AS contested,
    CASE WHEN count(read.cell_id) > 0 THEN coalesce(any_value(doubted.items), 0) END AS doubted
FROM asked
LEFT JOIN read USING (cell_id, item)
LEFT JOIN doubted ON asked.task = doubted.task
GROUP BY asked.task;

-- _gold: the right answer of an item as a text that is equal for equal answers of several sources; null: unknown. An
-- index or a letter stands for its choice, a worked solution for what follows its last ####. Case and spaces do not
-- count.
CREATE MACRO _gold(target, choices) AS (
    lower(trim(regexp_replace(CASE
        WHEN choices IS NULL THEN regexp_extract(_answer(target), '(?s)(?:.*####)?(.*)', 1)
        WHEN regexp_full_match(target, '\d+')
            THEN coalesce(choices[TRY_CAST(target AS INTEGER) + 1], target)
        WHEN list_contains(list_transform(choices, lambda choice: trim(choice)), trim(_answer(target)))
            THEN _answer(target)
        WHEN regexp_full_match(trim(_answer(target)), '\d{1,4}')
            THEN coalesce(choices[TRY_CAST(_answer(target) AS INTEGER) + 1], _answer(target))
        WHEN regexp_full_match(trim(_answer(target)), '[A-Z]')
            THEN coalesce(choices[ascii(trim(_answer(target))) - ascii('A') + 1], _answer(target))
        ELSE _answer(target)
    END, '\s+', ' ', 'g')))
);

-- _outcome: the outcome of an item, as schemas.verdicts.outcome_of; `stored` is its column, null in rows of schema 6.
CREATE MACRO _outcome(stored, failure, finish_reason, is_judged) AS (
    CASE
        WHEN stored IS NOT NULL THEN stored
        WHEN failure IS NOT NULL THEN CASE
            WHEN failure = 'empty_answer' THEN 'empty'
            WHEN failure = 'prompt_too_long' THEN 'overlong'
            WHEN failure = 'nan_logprobs' THEN 'nan'
            WHEN failure IN ('unknown_token', 'request_refused') THEN 'refused'
            WHEN failure = 'unfinished_thought' THEN 'truncated'
            WHEN failure = 'content_filter' THEN 'filtered'
            WHEN failure IN ('not_judged', 'judge_timeout', 'judge_died') THEN 'judge'
            ELSE 'engine'
        END
        WHEN NOT is_judged THEN 'judge'
        WHEN finish_reason = 'length' THEN 'truncated'
        ELSE 'ok'
    END
);

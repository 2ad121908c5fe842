-- _member_rows: one row per member of a pool and question with a row in the matrix. usd: as in the view costs.
CREATE VIEW _member_rows AS
SELECT
    matrix.*,
    _members.candidate,
    _members.pool,
    _members.is_all,
    _members.pool_number,
    _members.member,
    _members.candidates,
    _members.merit_sign,
    _questions_of.question_number,
    coalesce(
        _serving_usd(
            prompt_tokens,
            cached_tokens,
            cache_write_tokens,
            completion_tokens,
            reasoning_tokens,
            answers,
            usd_per_million_prompt,
            usd_per_million_cached,
            usd_per_million_cache_write,
            usd_per_million_completion,
            usd_per_million_reasoning,
            usd_per_request
        ),
        stated_usd
    ) AS usd
FROM matrix
INNER JOIN _members USING (cell_id)
INNER JOIN _questions_of ON _members.first_item_number + matrix.item = _questions_of.item_number
LEFT JOIN _repeats ON matrix.cell_id = _repeats.cell_id AND matrix.item = _repeats.item
WHERE matrix.item BETWEEN 0 AND _members.asked_items - 1;

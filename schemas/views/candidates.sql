-- candidates: one row per task and candidate: the cell that stands for it in the pool. A candidate is what a router
-- may choose: a model at a revision in a quantization, at one effort of thinking. candidate: the model's name, with
-- what tells two of one name apart. cells: of so many cells it was chosen: the prompting that most candidates share,
-- then most scored items, then the newest. Its settings (dtype, prompting, few-shot examples, chat template, engine,
-- source of an import) may differ from those of others; with --same dtype they are equal. left_out: it lacks too
-- many questions, alone or with others; gained: the questions that the pool gains by leaving out it and those that
-- went with it. --pool chooses the cells to choose among.
CREATE VIEW candidates AS
SELECT
    task,
    candidate,
    model,
    revision,
    quantization,
    effort,
    cell_id,
    cells,
    scored,
    _left_out.cell_id IS NOT NULL AS left_out,
    gained,
    metric,
    higher_is_better,
    correct_threshold,
    dtype,
    prompting,
    num_fewshot,
    chat_template,
    max_length,
    engine,
    imported_from,
    items_digest,
    version
FROM _pool_cells
LEFT JOIN _left_out USING (task, cell_id);

-- _same_settings: those settings of a cell that must be equal in the pool (variable pool_same), each as name=value.
CREATE MACRO _same_settings(
    dtype, prompting, num_fewshot, chat_template, system_prompt, decoding, max_length, engine, imported_from, quantization
) AS (
    list_filter(
        [
            concat('dtype=', dtype),
            concat('prompting=', prompting),
            concat('num_fewshot=', num_fewshot),
            concat('chat_template=', chat_template),
            concat('system_prompt=', system_prompt),
            concat('decoding=', decoding),
            concat('max_length=', max_length),
            concat('engine=', engine),
            concat('imported_from=', imported_from),
            concat('quantization=', quantization)
        ],
        lambda pair: list_contains(CAST(getvariable('pool_same') AS VARCHAR[]), split_part(pair, '=', 1))
    )
);

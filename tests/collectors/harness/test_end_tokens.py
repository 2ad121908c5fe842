"""A tokenizer that ends every text with a special token would end the question before its answer: it is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from collectors.harness.encoding import Encoder
from schemas.failures import TaskError
from tests.helpers.asked import bind, tasks
from tests.helpers.mini_tasks import own_caches
from tests.helpers.planned_cells import configured, planned, write_model

__all__ = ["own_caches", "tasks"]  # fixtures

#: Name of a post-processor -> its type and arguments; None: no post-processor.
PROCESSORS: dict[str, Any] = {
    "none": None,
    "begins": "<s> $A",
    "ends": "$A </s>",
    "begins_and_ends": "<s> $A </s>",
    "ends_otherwise": "$A [SEP]",
    "in_sequence": ["$A </s>"],  # as Llama 3's
    "bert": ("[SEP]", "<s>"),
}
ENDS = {"ends": "</s>", "begins_and_ends": "</s>", "ends_otherwise": "[SEP]", "in_sequence": "</s>", "bert": "[SEP]"}
MESSAGE = "the model's tokenizer puts {} after every text, where the answer should follow: collect a copy of the model"
#: A chat template that writes the beginning token itself: lm-eval then adds no special token.
WITH_BOS = "<s>{% for m in messages %}{{ m.content }}{% endfor %}"


def tokenizer(name: str, **settings: Any) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "</s>", "[SEP]"]
    words = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    inner = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    inner.add_special_tokens(special)

    def template(single: str) -> Any:
        pairs = [(token, inner.token_to_id(token)) for token in special if token in single]
        return processors.TemplateProcessing(single=single, special_tokens=pairs)

    kind = PROCESSORS[name]
    if isinstance(kind, str):
        inner.post_processor = template(kind)
    elif isinstance(kind, list):
        inner.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), *map(template, kind)])
    elif kind:
        inner.post_processor = processors.BertProcessing(*((token, inner.token_to_id(token)) for token in kind))
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", **settings)


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("task", ["mini_choice", "mini_generate", "mini_rolling"])
def test_texts_are_encoded_without_an_end_token_or_not_at_all(tasks: Path, name: str, task: str) -> None:
    encoder = Encoder(tokenizer(name))
    instances = [i for item in encoder.build(bind(tasks, task), 2) for i in item]
    if name not in ENDS:
        assert not any({1, 2} & {*one.context, *one.continuation} for one in encoder.encode(instances))
        return
    with pytest.raises(TaskError, match=r"where the answer should follow") as caught:
        encoder.encode(instances)
    assert caught.value.kind == "end_token"
    assert str(caught.value).startswith(MESSAGE.format(ENDS[name]))


@pytest.mark.parametrize("name", PROCESSORS)
def test_plan_refuses_it_where_the_tokenizer_is_here(tmp_path: Path, tasks: Path, name: str) -> None:
    folder = write_model(tmp_path / "model")
    tokenizer(name).save_pretrained(folder)
    plan = planned(configured(tasks, folder))
    assert [row["kind"] for row in plan.failures] == (["end_token"] if name in ENDS else [])
    assert len(plan.cells) == (name not in ENDS)
    if name in ENDS:
        assert plan.failures[0]["message"].startswith(MESSAGE.format(ENDS[name]))


def test_chat_template_that_writes_the_beginning_token_is_encoded_as_it_is(tmp_path: Path, tasks: Path) -> None:
    chats = tokenizer("begins_and_ends", chat_template=WITH_BOS)
    folder = write_model(tmp_path / "model")
    chats.save_pretrained(folder)
    plan = planned(configured(tasks, folder, chat_template=True))
    assert not plan.failures
    encoder = Encoder(chats)
    (prompt,) = encoder.encode(encoder.build(bind(tasks, "mini_generate", chat_template=True), 1)[0])
    assert prompt.context.count(0) == 1
    assert 1 not in prompt.context


def test_setting_of_the_tokenizers_class_counts(tmp_path: Path, tasks: Path) -> None:
    folder = write_model(tmp_path / "model")
    tokenizer("none").save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({**settings, "tokenizer_class": "GPT2Tokenizer", "add_eos_token": False}))
    assert not planned(configured(tasks, folder)).failures

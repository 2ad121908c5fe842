"""Renders conversations with a chat template, and compares the rendering with the messages.

Owns the date that templates write and the fate of a system message. A conversation is lm-eval's: the messages of one
request. Knows nothing of models or engines.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jinja2
from lm_eval.api.instance import Instance

from collectors.harness.tasks import BoundTask
from schemas.failures import TaskError, one_line

#: transformers' apply_chat_template of a tokenizer, or a function like it.
Apply = Callable[..., Any]
#: A clock as templates call it: a format of strftime -> text.
Clock = Callable[[str], str]

#: Two days that differ in every part of a date.
_DAYS = (dt.date(2021, 2, 3), dt.date(2033, 11, 24))
#: A system message that no template changes.
_PROBE = "routerlake-7319"
#: The fates of a system message that a template does not send.
REFUSES, LEAVES_OUT = "refuses it", "leaves it out"


class Chat(NamedTuple):
    """One conversation."""

    messages: list[dict[str, Any]]
    #: False: the last message is the beginning of the answer.
    add_generation_prompt: bool


class Traits(NamedTuple):
    """Traits of a template in the conversations of one task."""

    #: Whether the rendering depends on today's date.
    is_dated: bool
    #: REFUSES or LEAVES_OUT if a system message is not sent; None if it is, or there is none.
    unsent: str | None
    #: Whether the text of another message is not in the rendering as it is.
    changes_turns: bool
    #: The first conversation, rendered.
    text: str


def clock(day: dt.date) -> Clock:
    """A clock that stands at midnight of `day`."""
    return dt.datetime.combine(day, dt.time()).strftime


def dated_names(template: str, day: dt.date) -> dict[str, Any]:
    """The variables that give a template its date; only those that it names, as some tokenizers take no others."""
    at = clock(day)
    names = {"strftime_now": at, "date_string": at("%d %b %Y")}  # Llama 3.1's form of a date
    return {name: value for name, value in names.items() if name in template}


def render(apply: Apply, chat: Chat, variables: dict[str, Any]) -> tuple[str, str | None]:
    """Returns the rendered conversation, and REFUSES or LEAVES_OUT if its system message is not in it.

    A conversation whose system message makes the template raise is rendered without it, as lm-eval does.
    """
    settings = {
        "tokenize": False,
        "add_generation_prompt": chat.add_generation_prompt,
        "continue_final_message": not chat.add_generation_prompt,
        **variables,
    }
    messages = chat.messages
    system = str(messages[0]["content"]).strip() if messages and messages[0]["role"] == "system" else ""
    try:
        text = str(apply(messages, **settings))
    except jinja2.exceptions.TemplateError:
        others = [message for message in messages if message["role"] != "system"]
        if len(others) == len(messages):
            raise
        return str(apply(others, **settings)), REFUSES
    if system and system not in text and not _sends_system(apply, chat, settings):
        return text, LEAVES_OUT
    return text, None


def _sends_system(apply: Apply, chat: Chat, settings: dict[str, Any]) -> bool:
    """Whether a simple system message gets into the rendering: a template may write a long one in another form."""
    probe = [{**chat.messages[0], "content": _PROBE}, *chat.messages[1:]]
    try:
        return _PROBE in str(apply(probe, **settings))
    except jinja2.exceptions.TemplateError:
        return False


def _holds(text: str, chat: Chat) -> bool:
    """Whether a rendering holds the text of every message but the system's."""
    return all(str(m["content"]).strip() in text for m in chat.messages if m["role"] != "system")


def is_dated(apply: Apply, template: str, chat: Chat) -> bool:
    """Whether the rendering of `chat` depends on the date of today, which templates read by strftime_now."""
    if "strftime_now" not in template:
        return False
    one, other = (render(apply, chat, {"strftime_now": clock(day)})[0] for day in _DAYS)
    return one != other


def names_date(apply: Apply, template: str, chat: Chat) -> bool:
    """Whether a given date changes the rendering of `chat`, be it that the template's own date is a constant."""
    one, other = (dated_names(template, day) for day in _DAYS)
    return bool(one) and render(apply, chat, one)[0] != render(apply, chat, other)[0]


def unsent_error(task: str, fate: str) -> TaskError:
    """For a task with a system prompt that a model's template does not send."""
    return TaskError(
        f"task {task} has a system prompt, and the model's chat template {fate}: plan such models in a config of "
        "their own without system_prompt",
        "no_system_prompt",
    )


# ---- conversations of a task


def chats_of(task: BoundTask, upto: int) -> list[Chat]:
    """Returns the conversations of the items 0..upto-1, as any chat template would get them; none without a template.

    Raises TaskError when the task cannot build them.
    """
    chats: list[Chat] = []

    def keep(messages: list[dict[str, Any]], add_generation_prompt: bool = True) -> str:
        chats.append(Chat(messages, add_generation_prompt))
        return "?"

    build(task, upto, keep if task.spec.chat_template else None)
    return chats


def build(task: BoundTask, upto: int, chat_template: Callable[..., str] | None) -> list[Instance]:
    """Returns lm-eval's Instances of the items 0..upto-1, in order.

    Always starts at item 0, because lm-eval draws few-shot examples one item after the other. Raises TaskError when
    the task or the chat template cannot render an item.
    """
    spec = task.spec
    try:
        task.task.set_fewshot_seed(seed=spec.fewshot_seed)
        task.task.build_all_requests(
            limit=upto,
            system_instruction=spec.system_prompt,
            apply_chat_template=bool(spec.chat_template),
            fewshot_as_multiturn=bool(spec.chat_template) and spec.fewshot_as_multiturn,
            chat_template=chat_template,
        )
    except TaskError:
        raise
    except (Exception, SystemExit) as error:  # templates and task functions are foreign code
        raise TaskError(f"task {task.name} cannot build its requests: {one_line(error)}") from error
    return list(task.task.instances)


def traits_of(apply: Apply, template: str, chats: Sequence[Chat], *, date_given: bool) -> Traits:
    """Compares a template's renderings with the conversations. Raises TaskError if it cannot render one."""
    try:
        texts, fates = zip(*(render(apply, chat, {}) for chat in chats), strict=True)
        depends = names_date if date_given else is_dated
        dated = any(depends(apply, template, chat) for chat in chats)
        changed = any(not _holds(text, chat) for text, chat in zip(texts, chats, strict=True))
        return Traits(dated, next(filter(None, fates), None), changed, texts[0])
    except Exception as error:  # templates are foreign code
        raise TaskError(f"the model's chat template cannot render it: {one_line(error)}") from error

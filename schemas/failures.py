"""All errors as a small tree of exceptions, each with the kind that is stored and reported.

    RouterlakeError
    ├── ConfigError    the input is wrong: nothing is started, exit code 2
    ├── ModelError     this model cannot answer: its cells fail, others continue
    ├── TaskError      this task cannot be asked or judged: its cells fail, others continue
    ├── EngineError    the engine broke under a shard: retried on a new engine, then failed
    └── StorageError   the lake cannot be read or written: the run stops
        └── UnreachableError   a store or hub is away, or a disk is full: the run waits, then stops

Owns the kinds; knows nothing of who raises or stores them.
"""

from __future__ import annotations

from collections.abc import Iterator

from schemas.texts import visible, without_keys

#: Kinds of failures of a model, a task or a cell; each class below names those that it has.
KINDS = (
    *("no_weights", "unknown_architecture", "remote_code", "gated", "not_found", "bad_model", "model_changed"),
    *("unknown_memory", "no_gpu_fits", "unknown_task", "empty_task", "no_data", "bad_task", "no_chat_template"),
    *("no_system_prompt", "dated_template", "end_token", "no_examples", "not_answerable", "unsafe_code", "multimodal"),
    *("nothing_answered", "engine", "engine_died", "engine_stalled", "out_of_memory", "wrong_model", "over_cap"),
    *("no_node", "storage", "hub_down", "disk_full", "endpoint_down", "over_budget", "config", "error"),
)


#: What PyYAML raises beside its own errors, at depths and at tags that do not fit their values (`!!bool maybe`).
YAML_VALUE_ERRORS = (ValueError, LookupError, AttributeError, TypeError, RecursionError)


class RouterlakeError(Exception):
    """Base of all errors with a message for a person. `kind` is the column of failures."""

    kind = "error"

    def __init__(self, message: str, kind: str | None = None) -> None:
        super().__init__(without_keys(message))
        if kind:
            self.kind = kind

    def __reduce__(self) -> tuple[type[RouterlakeError], tuple[str, str], dict[str, str]]:
        return type(self), (str(self), self.kind), self.__dict__


class ConfigError(RouterlakeError):
    """`advice` ends the message: options of the command, for a caller who has others to name."""

    kind = "config"

    def __init__(self, message: str, kind: str | None = None, *, advice: str = "") -> None:
        super().__init__(message + advice, kind)
        self.message, self.advice = message, advice

    def without_advice(self) -> ConfigError:
        return ConfigError(self.message, self.kind)


class ModelError(RouterlakeError):
    """kinds: no_weights, unknown_architecture, remote_code, gated, not_found, bad_model, model_changed, unknown_memory,
    no_gpu_fits"""

    kind = "bad_model"


class TaskError(RouterlakeError):
    """kinds: unknown_task, empty_task, no_data, bad_task, no_chat_template, no_system_prompt, dated_template,
    end_token, no_examples, not_answerable, unsafe_code, multimodal, nothing_answered"""

    kind = "bad_task"


class EngineError(RouterlakeError):
    """kinds: engine, engine_died, engine_stalled, out_of_memory, wrong_model, over_cap, over_budget, no_node"""

    kind = "engine"


class StorageError(RouterlakeError):
    kind = "storage"


class UnreachableError(StorageError):
    """The lake's store, a model's source or its endpoint is away. kinds: storage, hub_down, disk_full, endpoint_down"""


#: Kind of a TaskError: every item of a cell was asked, and none of the answers could be judged.
NOTHING_ANSWERED = "nothing_answered"
#: Kind of an EngineError: the model, or a batch of its requests, did not fit.
OUT_OF_MEMORY = "out_of_memory"
#: Kind of an EngineError: the model has spent what the budget allows for one model.
OVER_CAP = "over_cap"
#: Kind of an UnreachableError: an endpoint does not answer.
ENDPOINT_DOWN = "endpoint_down"
#: Kind of an EngineError: an endpoint's next request might cost more than the budget has left.
OVER_BUDGET = "over_budget"
#: Kind of an UnreachableError: the disk of the machine that fetches a model is full.
DISK_FULL = "disk_full"
#: Kind of an EngineError: no node has the GPUs that the model needs, and none came.
NO_NODE = "no_node"

# Failure kinds of a single item (RECORD.failure).
EMPTY_ANSWER = "empty_answer"
PROMPT_TOO_LONG = "prompt_too_long"
NAN_LOGPROBS = "nan_logprobs"
#: A token of the item is beyond the model's embeddings: its tokenizer has more tokens than its weights.
UNKNOWN_TOKEN = "unknown_token"
NOT_JUDGED = "not_judged"
#: A model began to think and did not come to an answer, within its tokens or at all.
UNFINISHED_THOUGHT = "unfinished_thought"
#: A host's content filter withheld the question or the answer.
CONTENT_FILTER = "content_filter"
#: An endpoint refuses this request and takes others.
REQUEST_REFUSED = "request_refused"
#: An endpoint replied to this request several times without an answer.
ENDPOINT_FAILED = "endpoint_failed"
#: The judge ran out of time, or its process ended, at this item.
JUDGE_TIMEOUT = "judge_timeout"
JUDGE_DIED = "judge_died"

ITEM_FAILURES = frozenset(
    [
        *(EMPTY_ANSWER, PROMPT_TOO_LONG, NAN_LOGPROBS, UNKNOWN_TOKEN, UNFINISHED_THOUGHT, CONTENT_FILTER),
        *(REQUEST_REFUSED, ENDPOINT_FAILED, NOT_JUDGED, JUDGE_TIMEOUT, JUDGE_DIED),
    ]
)


def one_line(error: BaseException, limit: int = 500) -> str:
    """Returns the message on one line of at most `limit` characters, after the type of an error that is not ours."""
    # An error of a task may hold half of a character, which no table can.
    # What is left of a longer one is cut below.
    text = " ".join(str(error)[: 40 * limit].encode("utf-8", "backslashreplace").decode().split())
    text = visible(without_keys(text)) or "no message"
    if not isinstance(error, RouterlakeError):
        text = f"{type(error).__name__}: {text}"
    return text if len(text) <= limit else text[: limit - 1] + "…"


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yields the error, then the errors that it was raised from or while handling, in order."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__

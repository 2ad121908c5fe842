"""Renders a task's items as Instances and tokenises them, with lm-eval's own code.

Owns the step from a bound task to Instances and from those to token ids. lm-eval's TemplateLM tokenises; special tokens
are handled as in its vLLM backend. Knows nothing of engines, answers or storage.
"""

from __future__ import annotations

import copy
import datetime as dt
import functools
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import has_bos_prefix

from collectors.engines import Tokenizer
from collectors.harness.chats import Chat, build, dated_names, is_dated, render, unsent_error
from collectors.harness.tasks import BoundTask
from schemas.failures import EngineError, TaskError, one_line

logger = logging.getLogger(__name__)


class Encoded(NamedTuple):
    """Token ids of one Instance."""

    #: The tokens before the scored ones, or the prompt to continue; empty for a rolling text.
    context: list[int]
    #: The scored tokens: a choice, or a whole rolling text; empty for a prompt.
    continuation: list[int]


def ending(tokenizer: Any) -> list[int]:
    """The special tokens that a tokenizer puts after every text that it encodes."""
    plain, whole = (list(tokenizer.encode("a", add_special_tokens=special)) for special in (False, True))
    starts = (at for at in range(len(whole) - len(plain) + 1) if whole[at : at + len(plain)] == plain)
    return next((whole[at + len(plain) :] for at in starts), [])


def end_token_error(token: str) -> TaskError:
    """For a tokenizer that would put an end between a question and its answer: accuracy .3 became .9 without it."""
    return TaskError(
        f"the model's tokenizer puts {token} after every text, where the answer should follow: collect a copy of the "
        "model without it (add_eos_token in tokenizer_config.json, or post_processor in tokenizer.json)",
        "end_token",
    )


class Encoder(TemplateLM):
    """lm-eval's rendering and tokenisation with one model's tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.tokenizer: Any = tokenizer
        bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        if bos is None and eos is None:
            raise EngineError("the tokenizer has neither a begin nor an end token", kind="bad_model")
        self._prefix = int(bos if bos is not None else eos)  # type: ignore[arg-type]
        self._prefix_text = self._text(self._prefix)
        #: The date that chat templates write, YYYY-MM-DD; None: they must write none.
        self.chat_date: str | None = None
        #: The chat template's own variables (chat_template_args).
        self.template_args: dict[str, Any] = {}
        #: Fates of the system messages of the last build that were not sent (collectors.harness.chats).
        self.unsent: set[str] = set()
        self._encoded: list[tuple[list[int], list[int]]] = []
        #: Tokens that the tokenizer puts after every text.
        self._ending = ending(tokenizer)
        # lm-eval tokenises an item's context again for each choice.
        self._recent = functools.lru_cache(4)(self._tokenise)

    # ---- the methods that lm-eval's TemplateLM needs

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        return self._prefix

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        if not string:
            return []
        if has_bos_prefix(string, self._prefix_text):  # a chat template put it there already
            add_special_tokens = False
        return self._recent(string, add_special_tokens)

    def _tokenise(self, string: str, add_special_tokens: bool | None) -> list[int]:
        if add_special_tokens is not False and self._ending:
            raise end_token_error(self._text(self._ending[0]))
        special = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return list(self.tokenizer.encode(string, **special))

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """As lm-eval does, but with the prefix token as context where it leaves none: it moves spaces at the context's
        end into the continuation, and a context of spaces alone becomes empty."""
        before, after = super()._encode_pair(context, continuation)
        if before:
            return before, after
        return [self._prefix], after[1:] if after[:1] == [self._prefix] else after

    def _loglikelihood_tokens(self, requests: list[Any], **kwargs: Any) -> list[tuple[float, bool]]:
        self._encoded = [(context, continuation) for _, context, continuation in requests]
        return [(0.0, False)] * len(requests)

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        raise NotImplementedError("an encoder asks nothing")

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        raise NotImplementedError("an encoder asks nothing")

    def render_chat(self, chat_history: list[dict[str, Any]], add_generation_prompt: bool = True) -> str:
        """Renders the conversation with the model's own template, at `chat_date`.

        Adds the fate of a system message that is not sent to `unsent`. Raises TaskError for a template that writes
        today's date, where `chat_date` is None.
        """
        apply = functools.partial(self.tokenizer.apply_chat_template, **self.template_args)
        chat = Chat(chat_history, add_generation_prompt)
        template = str(self.tokenizer.chat_template)
        if self.chat_date:
            variables = dated_names(template, dt.date.fromisoformat(self.chat_date))
        elif is_dated(apply, template, chat):
            raise TaskError("the chat template writes today's date: give one as chat_date", "dated_template")
        else:
            variables = {}
        text, unsent = render(apply, chat, variables)
        if unsent:
            self.unsent.add(unsent)
        return text

    # ---- building

    def template(self, task: BoundTask) -> str | None:
        """Returns the chat template that the task's prompting chooses, or None if it uses none.

        Raises TaskError when the prompting needs a chat template and the model has none, or none of that name.
        """
        chat = task.spec.chat_template
        if not chat:
            return None
        if not self.tokenizer.chat_template:
            raise TaskError(f"task {task.name} wants a chat template and the model has none", kind="no_chat_template")
        try:
            return str(self.chat_template(chat))
        except ValueError as error:
            raise TaskError(f"task {task.name} cannot build its requests: {one_line(error)}") from error

    def build(self, task: BoundTask, upto: int) -> list[list[Instance]]:
        """Returns the Instances of items 0..upto-1, a list per item.

        Raises TaskError when the task or the chat template cannot render an item, or the template does not send the
        system prompt.
        """
        template = self.template(task)
        self.unsent.clear()
        items: list[list[Instance]] = [[] for _ in range(upto)]
        for instance in build(task, upto, _named(self, template) if template else None):
            items[instance.doc_id].append(instance)
        for fate in sorted(self.unsent):
            if task.spec.system_prompt:
                raise unsent_error(task.name, fate)
            logger.warning("task %s: its description is not sent: the model's chat template %s", task.name, fate)
        return items

    # ---- encoding

    def encode(self, instances: Sequence[Instance]) -> list[Encoded]:
        """Returns the token ids of each Instance, in order."""
        scored = iter(self._encode_scores([i for i in instances if i.request_type == "loglikelihood"]))
        return [next(scored) if i.request_type == "loglikelihood" else self._encode_text(i) for i in instances]

    def _encode_text(self, instance: Instance) -> Encoded:
        tokens = self.tok_encode(instance.args[0])
        if instance.request_type == "generate_until":
            return Encoded(tokens or [self._prefix], [])
        return Encoded([], tokens)

    def _encode_scores(self, instances: list[Instance]) -> list[Encoded]:
        """Encodes log-likelihood Instances by lm-eval's rules.

        An Instance whose context and choice are both empty gets the prefix token as context: lm-eval cannot encode it.
        """
        empty = [not any(inst.args[:2]) for inst in instances]
        self.loglikelihood([inst for inst, skip in zip(instances, empty, strict=True) if not skip], disable_tqdm=True)
        encoded, self._encoded = iter(self._encoded), []
        return [Encoded([self._prefix], []) if skip else Encoded(*next(encoded)) for skip in empty]

    def _text(self, token: int) -> str:
        return str(self.tokenizer.decode(token))


def _named(encoder: Encoder, template: str) -> Any:
    """Returns render_chat, set to the chosen template where the tokenizer has several."""
    if isinstance(encoder.tokenizer.chat_template, dict):
        encoder = copy.copy(encoder)
        encoder.tokenizer = copy.copy(encoder.tokenizer)
        encoder.tokenizer.chat_template = template
    return encoder.render_chat

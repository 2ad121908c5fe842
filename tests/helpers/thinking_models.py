"""A tiny model that thinks, trained on sums: after a user's `3+4=` it writes a thought, an empty line in it, the sum.

Owns the checkpoint and its chat template, whose variable enable_thinking: false writes an empty thought. It has a false
number in each thought, so that a thought that is judged as the answer is seen.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from tests.helpers.tiny_models import tiny_models

TEMPLATE = (
    "{% for m in messages %}{{ '<|start|>' + m['role'] + '\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{% endif %}"
)
#: Largest number of a sum, and most steps of training.
LARGEST, STEPS = 4, 160


def _texts(a: int, b: int, *, thinks: bool) -> tuple[str, str]:
    prompt = f"<|start|>user\n{a}+{b}=<|end|>\n<|start|>assistant\n"
    if thinks:
        return prompt, f"<think>\nIs it {a + b + 1}?\n\nNo.\n</think>\n\n{a + b}<|end|>"
    return prompt + "<think>\n\n</think>\n\n", f"{a + b}<|end|>"


def _train(source: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tok = AutoTokenizer.from_pretrained(source)
    tok.chat_template = TEMPLATE
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    torch.manual_seed(0)
    rows = []
    for a in range(LARGEST + 1):
        for b in range(LARGEST + 1):
            for thinks in (True, False):
                prompt, answer = (tok.encode(text) for text in _texts(a, b, thinks=thinks))
                rows.append((prompt + answer, [-100] * len(prompt) + answer))
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([row + [tok.pad_token_id] * (longest - len(row)) for row, _ in rows])
    labels = torch.tensor([row + [-100] * (longest - len(row)) for _, row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row, _ in rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(STEPS):
        loss = model(input_ids=ids, labels=labels, attention_mask=mask).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 0.02:
            break
    model.save_pretrained(folder)
    tok.save_pretrained(folder)


def thinking_model(cache: Path) -> Path:
    """The checkpoint, trained in `cache` unless a former run of this very script left it there: 25 CPU-seconds."""
    folder = cache / f"thinking-model-{hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]}"
    if not folder.exists():
        work = Path(tempfile.mkdtemp(dir=cache))
        _train(tiny_models(cache)["good"], work)
        try:
            os.rename(work, folder)
        except OSError:  # another test session was faster
            shutil.rmtree(work)
    return folder

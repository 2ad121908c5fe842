"""Builds a family of tiny Llama models from the standard library's own text, in ten seconds and without a network.

Owns the checkpoints that tests load: `random` and `other` (two seeds, untrained), `weak` and `good` (trained on sums
like "Q: 3+4=\\nA: 7\\n\\n", early and late). 1,024 tokens of vocabulary, a context of 2,048, float32 safetensors, a
chat template.
"""

from __future__ import annotations

import hashlib
import os
import pydoc_data.topics
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

BOS, EOS, PAD = "<|start|>", "<|end|>", "<|pad|>"
CONTEXT, STEPS, BATCH, WINDOW = 2048, {"weak": 40, "good": 240}, 16, 48
TEMPLATE = (
    "{% for m in messages %}{{ '<|start|>' + m['role'] + '\\n' + m['content'] + '<|end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\\n' }}{% endif %}"
)


def sums(count: int, generator: random.Random) -> str:
    """`count` solved sums of numbers below 20, as few-shot prompts are laid out."""
    pairs = [(generator.randrange(20), generator.randrange(20)) for _ in range(count)]
    return "".join(f"Q: {a}+{b}=\nA: {a + b}\n\n" for a, b in pairs)


def tokenizer() -> Any:
    """A byte-level BPE tokenizer with single digits, trained on Python's own help topics and on sums."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    digits, byte_level = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([*pydoc_data.topics.topics.values(), sums(200, random.Random(0))], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=BOS, eos_token=EOS, pad_token=PAD, model_max_length=CONTEXT
    )
    fast.chat_template = TEMPLATE
    return fast


def untrained(tok: Any, seed: int) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tok),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=False,
            bos_token_id=tok.bos_token_id,
            eos_token_id=tok.eos_token_id,
            pad_token_id=tok.pad_token_id,
        )
    )


def build(folder: Path) -> None:
    """Writes the four checkpoints under `folder`; the same bytes on every run of one machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two wait for each other: 37 CPU-seconds in place of 25 at a batch of 48
    tok, generator = tokenizer(), random.Random(0)
    models = {"random": untrained(tok, 0), "other": untrained(tok, 1)}
    model = untrained(tok, 0)
    ids = [tok.encode(sums(6, generator) + (EOS if i % 4 == 0 else "")) for i in range(3000)]
    rows = [row for row in ids if len(row) >= WINDOW]
    windows = torch.tensor([row[at : at + WINDOW] for row in rows for at in (0, len(row) - WINDOW)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(1, max(STEPS.values()) + 1):
        batch = windows[torch.randint(0, len(windows), (BATCH,))]
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        for name in (name for name, steps in STEPS.items() if steps == step):
            model.save_pretrained(folder / name)
    for name, untouched in models.items():
        untouched.save_pretrained(folder / name)
    for name in (*models, *STEPS):
        tok.save_pretrained(folder / name)
    torch.set_num_threads(threads)


def tiny_models(cache: Path) -> dict[str, Path]:
    """The checkpoints by name, built in `cache` unless a former run of this very script left them there."""
    folder = cache / f"tiny-models-{hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=cache))
        build(work)
        try:
            os.rename(work, folder)
        except OSError:  # another test session was faster
            shutil.rmtree(work)
    return {name: folder / name for name in ("random", "other", *STEPS)}

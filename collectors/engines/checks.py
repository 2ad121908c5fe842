"""Checks the files of a model's folder before an engine opens it.

A broken folder then costs milliseconds and gives one clear line instead of a traceback from inside a library. Does not
load models, and asks its caller which models an engine can run.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from collectors.engines import ModelRef
from collectors.engines.weight_files import INDEXES, loaded_of, missing_shards
from schemas.failures import ModelError, one_line

logger = logging.getLogger(__name__)

#: Any one of these makes a tokenizer. From tokenizer_config.json alone transformers silently makes an empty one.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tekken.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "*.tiktoken",
    "tokenization_*.py",
)
#: Files that trainers write beside the weights, or without any.
NOT_WEIGHTS = ("training_args.bin", "optimizer.bin", "scheduler.bin")


def warn_of_slow_bfloat16(model: str, dtype: Any) -> None:
    """Warns of a computation that PyTorch has no fast code for: four cells took 7 minutes in place of 2."""
    import torch

    if dtype == torch.bfloat16 and torch.backends.cpu.get_cpu_capability() == "AVX2":
        logger.warning("model %s: this CPU has no AVX-512, so bfloat16 is slow: dtype: float32 is faster", model)


def check_folder(model: ModelRef, supported: Callable[[dict[str, Any]], bool]) -> str:
    """Returns the model's folder if its files are sound and `supported`, called with its config.json, is true.

    Raises ModelError of kind not_found, bad_model, no_weights, remote_code or unknown_architecture.
    """
    folder = Path(model.path or "")
    if not model.path or not folder.is_dir():
        raise ModelError(f"model {model.name!r}: the folder {model.path} does not exist", kind="not_found")
    config = _read_json(model, folder / "config.json")
    if not supported(config) and not model.trust_remote_code:
        what = f"model type {config.get('model_type')!r}, architectures {config.get('architectures')}"
        if "auto_map" in config:
            advice = "set trust_remote_code for this model if you trust it"
            raise ModelError(f"model {model.name!r} needs its own code ({what}); {advice}", kind="remote_code")
        raise ModelError(f"model {model.name!r}: the engine does not know {what}", kind="unknown_architecture")
    if not any(True for pattern in TOKENIZER_FILES for _ in folder.glob(pattern)):
        raise ModelError(f"model {model.name!r}: {folder} has no tokenizer (such as tokenizer.json)")
    check_files(model, folder)
    held = {name: shape for file in _loaded(model, folder)[1] for name, shape in _shapes(model, folder / file).items()}
    _check_counts(model, config, len(held))
    _check_tensors(model, folder, held)
    return str(folder)


def load_error(model: ModelRef, error: Exception) -> ModelError:
    """Turns a library's error while it loaded `model` into a ModelError, with a kind that fits its message."""
    text = str(error)
    if "trust_remote_code" in text:
        return ModelError(f"model {model.name!r} needs its own code: {one_line(error)}", kind="remote_code")
    unknown = ("architectures" in text and "not supported" in text) or "Unrecognized configuration class" in text
    kind = "unknown_architecture" if unknown else "bad_model"
    return ModelError(f"model {model.name!r} cannot be loaded: {one_line(error)}", kind=kind)


def _read_json(model: ModelRef, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ModelError(f"model {model.name!r}: {path} is missing") from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"model {model.name!r}: {path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ModelError(f"model {model.name!r}: {path} is not a JSON object")
    return value


def check_files(model: ModelRef, folder: Path) -> None:
    """Raises ModelError for a folder without weights, a missing file of the weights, or a damaged safetensors file.

    Only the files that an engine loads count, and their index: leftovers of a conversion do no harm.
    """
    files = [f for pattern in ("*.safetensors", "*.bin", "*.pt") for f in folder.glob(pattern)]
    if not [f for f in files if f.name not in NOT_WEIGHTS]:
        raise ModelError(f"model {model.name!r}: {folder} has no weights (*.safetensors or *.bin)", kind="no_weights")
    kind, loaded = _loaded(model, folder)
    if missing := sorted(set(loaded) - {f.name for f in files}):
        raise ModelError(f"model {model.name!r}: {INDEXES[str(kind)]} names {missing[0]}, which is missing")
    if count := missing_shards(loaded):
        raise ModelError(f"model {model.name!r}: {count} of the files that belong to {loaded[0]} are missing")
    for file in (folder / name for name in loaded if name.endswith(".safetensors")):
        if problem := _safetensors_problem(file):
            raise ModelError(f"model {model.name!r}: {file} is damaged: {problem}")


def _loaded(model: ModelRef, folder: Path) -> tuple[str | None, list[str]]:
    try:
        return loaded_of(folder)
    except ValueError as error:
        raise ModelError(f"model {model.name!r}: {folder}: {error}") from error


#: Counts of parts of a model, each with a tensor of its own; a few have layers that share one.
_COUNT = re.compile(r"(^|_)(layers?|experts|blocks|labels)$")
#: Parts per tensor beyond which a config.json is not of these weights, and the parts that any may have.
_MOST_PARTS, _ANY_PARTS = 8, 256


def _check_counts(model: ModelRef, config: dict[str, Any], tensors: int) -> None:
    """Raises ModelError for a config.json that asks for far more parts than there are tensors.

    10⁹ layers beside 3 MB of weights held a worker for two hours: every class makes its layers one by one.
    """
    most = max(_ANY_PARTS, _MOST_PARTS * tensors)
    for section in (config, *(value for value in config.values() if isinstance(value, dict))):
        for name, value in section.items():
            if _COUNT.search(name) and isinstance(value, int | float) and tensors and value > most:
                raise ModelError(
                    f"model {model.name!r}: config.json asks for {name} = {value:,}, and the weights have {tensors:,} "
                    "tensors: it is not of these weights"
                )


def _check_tensors(model: ModelRef, folder: Path, held: dict[str, list[int]]) -> None:
    """Raises ModelError when the weights lack a tensor that config.json asks for, or hold a matrix of another shape.

    vLLM reports neither: it takes the first rows of a larger matrix, and leaves a missing one uninitialised. Quantized
    weights, models with their own code and classes that transformers lacks are not checked here.
    """
    asked = _parameter_shapes(model, folder)
    # Names in files differ from those in transformers' class where weights are merged on loading. So a parameter counts
    # as missing only if the files hold others of its kind (its name without layer numbers), or no name of their own.
    kinds = {_kind(name) for name in held}
    exact = held.keys() <= asked.keys()
    for name, shape in asked.items() if held else ():
        if name not in held and (exact or _kind(name) in kinds):
            raise ModelError(f"model {model.name!r}: the weights lack {name}")
        if len(shape) == 2 and held.get(name, shape) != shape:
            shapes = f"{held[name]} in the weights but {shape} by config.json"
            raise ModelError(f"model {model.name!r}: {name} has the shape {shapes}")


def _shapes(model: ModelRef, file: Path) -> dict[str, list[int]]:
    """Maps the tensor names of a file of weights to their shapes, without reading tensors."""
    if file.suffix == ".safetensors":
        return {name: tensor["shape"] for name, tensor in read_header(file).items()}
    import torch

    try:
        # On the device meta a tensor has no storage; only plain tensors are unpickled.
        tensors = torch.load(file, map_location="meta", weights_only=True)
        return {name: list(tensor.shape) for name, tensor in tensors.items() if isinstance(tensor, torch.Tensor)}
    except Exception as error:  # of the unpickler, of zip files and of torch
        raise ModelError(f"model {model.name!r}: {file} is damaged: {one_line(error, 200)}") from error


def _kind(name: str) -> str:
    return re.sub(r"\d+", "*", name)


def _parameter_shapes(model: ModelRef, folder: Path) -> dict[str, list[int]]:
    """Maps the parameters of transformers' class for config.json to their shapes, tied ones once.

    Empty for models that are not checked here, and where the class cannot be made.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if model.trust_remote_code or "quantization_config" in _read_json(model, folder / "config.json"):
        return {}
    try:
        with torch.device("meta"):
            empty = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    except Exception as error:
        logger.info("model %s: tensors not checked: %s", model.name, one_line(error))
        return {}
    optional = [re.compile(pattern) for pattern in empty._keys_to_ignore_on_load_missing or ()]
    parameters = {name: list(parameter.shape) for name, parameter in empty.named_parameters()}
    return {name: shape for name, shape in parameters.items() if not any(p.search(name) for p in optional)}


def read_header(file: Path) -> dict[str, Any]:
    """Maps the tensor names of a safetensors file to dtype, shape and data_offsets."""
    with file.open("rb") as stream:
        header: dict[str, Any] = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    header.pop("__metadata__", None)
    return header


def _safetensors_problem(file: Path) -> str | None:
    """Returns the fault of a safetensors file, or None.

    A sound one has 8 bytes with the header's length, a JSON header, and then exactly the tensors.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
    if length > size - 8:
        return f"{size} bytes hold no header"
    try:
        ends = [tensor["data_offsets"][1] for tensor in read_header(file).values()]
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        return f"its header cannot be read ({one_line(error, 100)})"
    expected = 8 + length + max(ends, default=0)
    return None if size == expected else f"{size} bytes instead of {expected}"

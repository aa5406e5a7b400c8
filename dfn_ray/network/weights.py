"""Weights as plain arrays, read from checkpoints without running code from them.

A checkpoint is a safetensors file, or any file that `torch.load(weights_only=True)` accepts. The
float32 state of the module after loading is what is sent, hashed and loaded again: a bf16 or fp16
checkpoint is widened once, exactly.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from open_clip import convert
from open_clip import model as open_clip_model
from torch import nn

from dfn_ray.errors import InputError, shortened
from dfn_ray.network.layouts import LFS_POINTER, LFS_POINTER_MESSAGE, json_object_of
from dfn_ray.network.safetensors_header import tensors_in

State = dict[str, np.ndarray]

_WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that DistributedDataParallel and torch.compile add to every name, in order of
wrapping."""
_DIGESTS = "dfn_ray.sha256s"
"""Key in the metadata of a safetensors file: JSON with `tensors`, the `sha256` of its tensors, and
`files`, the SHA-256 of files in the same folder by name. One key, so that equal networks have equal
files: safetensors writes several in random order."""
_UNSCORED = "text_decoder."
"""Parameters of CoCa's caption decoder. Scores do not depend on them, and open_clip leaves one of
them uninitialized."""
_CODE = re.compile(r"(?:GLOBAL|global:?) ([\w.]+)")
"""Matches the first function that a pickle would call, in torch's message."""


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """Returns the names and tensors of a checkpoint file, without prefixes added by training loops.

    Raises InputError if the file is missing or damaged, does not match its own digest, contains
    anything but weights, or needs code to load.
    """
    digest = None
    try:
        if is_whole_safetensors(path):
            content: Any = safetensors.torch.load_file(path)
            digest = _digests(path).get("tensors")
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        code = _CODE.search(str(error))
        raise InputError(
            f"{path}: refused, because loading it would run code from the "
            f"file{f' ({code[1]})' if code else ''}. Export its state_dict as safetensors and use "
            "that file."
        ) from None
    except (InputError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001  torch raises any type for a damaged file
        raise InputError(
            f"{path}: not a checkpoint in safetensors or torch format ({_first_line(error)})"
        ) from None
    if digest is not None:
        require_digest(str(path), digest, sha256(_arrays(content)), checkpoint=path)
    if isinstance(content, Mapping) and "state_dict" in content:
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{path}: need a state_dict, got {type(content).__name__}")
    state = dict(content)
    while prefix := next((p for p in _WRAPPERS if all(str(n).startswith(p) for n in state)), None):
        state = {str(name).removeprefix(prefix): value for name, value in state.items()}
    others = [str(name) for name, value in state.items() if not _is_weight(name, value)]
    if others:
        raise InputError(
            f"{path}: need dense tensors of real numbers, by name, got other values: "
            f"{_first_names(others)}"
        )
    return state


def is_whole_safetensors(path: Path) -> bool:
    """Returns True for a file of the safetensors format.

    Raises InputError if it cannot be read, bytes are missing at its end, or it is a Git LFS
    pointer.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(LFS_POINTER)) == LFS_POINTER:
                raise InputError(f"{path}: {LFS_POINTER_MESSAGE}")
            file.seek(0)
            return tensors_in(file, path.stat().st_size, str(path)) is not None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}") from None


def serialized_weights(state: Mapping[str, torch.Tensor], beside: Mapping[str, bytes]) -> bytes:
    """Returns a safetensors file with digests of its tensors and of the files `beside` it.

    The digests are in its metadata, which other readers ignore.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    digests = {
        "tensors": sha256(_arrays(tensors)),
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in beside.items()},
    }
    return safetensors.torch.save(tensors, metadata={_DIGESTS: json.dumps(digests, sort_keys=True)})


def digests_beside(path: Path) -> dict[str, str]:
    """Returns the SHA-256 of each file that a checkpoint was saved with, by name, if stored."""
    try:
        return _digests(path).get("files", {}) if _is_safetensors(path) else {}
    except (OSError, safetensors.SafetensorError):
        return {}  # `read_checkpoint` reports the error


def require_digest(where: str, stored: str, found: str, *, checkpoint: Path) -> None:
    """Raises InputError unless a digest equals the one stored in a checkpoint."""
    if found != stored:
        raise InputError(
            f"{where}: is damaged or was altered: its SHA-256 is {found}, but the metadata of "
            f"{checkpoint.name} contain {stored}. Restore it from a copy; if you changed it on "
            "purpose, save the weights again without their metadata"
        )


def _is_weight(name: object, value: object) -> bool:
    return (
        isinstance(name, str)
        and isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and not (value.is_meta or value.is_quantized or value.is_complex())
    )


def quantised_type(tensor: torch.Tensor) -> str | None:
    """The type of a tensor of quantised weights, whose scales are stored elsewhere; else None."""
    if tensor.is_floating_point() and tensor.dtype.itemsize > 1:
        return None
    return str(tensor.dtype).removeprefix("torch.")


def require_finite(module: nn.Module, source: str) -> None:
    """Raises InputError that names parameters with NaN or infinity, which make every score NaN."""
    wrong = [
        name
        for name, parameter in module.named_parameters()
        if not name.startswith(_UNSCORED) and not bool(torch.isfinite(parameter).all())
    ]
    if wrong:
        raise InputError(
            f"{source}: the weights hold NaN or infinity: {_first_names(wrong)}; use another copy "
            "or an earlier checkpoint"
        )


def load_into(module: nn.Module, state: dict[str, torch.Tensor], source: Path) -> None:
    """Loads a checkpoint's tensors into `module`, adapted as in open_clip's `load_checkpoint`.

    Raises InputError that names some of the keys if any is missing, unexpected, of another shape or
    quantised.
    """
    state = dict(convert.convert_state_dict(module, state))  # type: ignore[arg-type]
    if "positional_embedding" in state and not hasattr(module, "positional_embedding"):
        state = open_clip_model.convert_to_custom_text_state_dict(state)
    for name in ("logit_scale", "logit_bias"):
        parameter = getattr(module, name, None)
        if name in state and parameter is not None:
            state[name] = state[name].reshape(parameter.shape)
    if getattr(module, "logit_bias", None) is not None and "logit_scale" in state:
        state.setdefault("logit_bias", torch.zeros_like(state["logit_scale"]))
    # transformers < 4.31 saved this buffer.
    state.pop("text.transformer.embeddings.position_ids", None)
    quantised = [
        f"{name} is of {kind}"
        for name, parameter in module.named_parameters()
        if name in state and parameter.is_floating_point() and (kind := quantised_type(state[name]))
    ]
    if quantised:
        raise InputError(
            f"{source}: need floating-point numbers of 16 bits or more: {_first_names(quantised)}; "
            "use the weights from before they were quantised"
        )
    try:
        open_clip_model.resize_pos_embed(state, module)
        if _has_text_positions(module):
            open_clip_model.resize_text_pos_embed(state, module)
        missing, unexpected = module.load_state_dict(state, strict=False)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"{source}: the weights do not fit the architecture ({_first_line(error)}); check "
            "model and pretrained"
        ) from None
    if missing or unexpected:
        raise InputError(
            f"{source}: the weights do not fit the architecture: {len(missing)} tensors missing "
            f"({_first_names(missing)}), {len(unexpected)} unexpected "
            f"({_first_names(unexpected)}); check model and pretrained"
        )


def state_of(module: nn.Module) -> State:
    """Returns the module's weights and buffers as arrays that share its memory."""
    return {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}


def restore(module: nn.Module, state: State) -> None:
    """Copies `state` into a module of the same architecture; raises if names or shapes differ."""
    with warnings.catch_warnings():
        # Arrays in Ray's shared memory are read-only.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    module.load_state_dict(tensors, strict=True)


def sha256(state: State) -> str:
    """Returns a digest of names, types, shapes and values, independent of their order and file."""
    digest = hashlib.sha256()
    for name, array in sorted(state.items()):
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def interpolate(
    start: Mapping[str, torch.Tensor], end: Mapping[str, torch.Tensor], alpha: float
) -> dict[str, torch.Tensor]:
    """Returns (1 - alpha) * start + alpha * end for float tensors, and other tensors from `end`.

    This is WiSE-FT (Wortsman et al. 2022).
    """
    return {
        name: torch.lerp(start[name].float(), tensor.float(), alpha).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in end.items()
    }


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"  # 8 bytes of length, then JSON


def _digests(path: Path) -> dict[str, Any]:
    """The digests in a safetensors file. Raises InputError if they are not as written."""
    with safetensors.safe_open(path, "pt") as file:
        stored = (file.metadata() or {}).get(_DIGESTS)
    if stored is None:
        return {}
    found = json_object_of(stored.encode(), f"{path}: {_DIGESTS}")
    files = found.get("files", {})
    if not isinstance(files, dict):
        raise InputError(f"{path}: {_DIGESTS}.files: need an object, got {shortened(repr(files))}")
    return found


def _arrays(tensors: Mapping[str, torch.Tensor]) -> State:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _has_text_positions(module: nn.Module) -> bool:
    """True for open_clip's own text towers; Hugging Face's store their positions elsewhere."""
    return hasattr(getattr(module, "text", module), "positional_embedding")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _first_names(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:3]) or "none"
    return shown + (", ..." if len(names) > 3 else "")

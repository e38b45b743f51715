"""Checkpoints: read without running what is in them, and loaded whole or not at all."""

from __future__ import annotations

import logging
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shared.data import pickled_arrays
from shared.errors import ModelLoadError
from shared.files import sha256_of_file
from shared.lazy import lazy_import

torch = lazy_import("torch")

_log = logging.getLogger("exporter")

# Enough to recognize what is wrong, not a screenful.
_LISTED = 8
_LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"
# An archive (zip), and a pickle, as files of before PyTorch 1.6 are.
_CHECKPOINTS_BEGIN = (b"PK", b"\x80")
# A head at the top of a model. A checkpoint may have one that the model has none of: its loss only helped the training,
# or it does a second task.
_HEAD = re.compile(r"(\w+_head)\.")
# Checkpoints of one architecture share all names; below this share it is another one.
_SAME_MODEL_SHARE = 0.5


def checkpoint_digest(path: Path) -> str:
    """sha256 of a checkpoint file.

    Raises:
        ModelLoadError: missing.
    """
    if not path.is_file():
        raise ModelLoadError("no such checkpoint", where=str(path), hint="give its path as model.checkpoint")
    return sha256_of_file(path)


def read_state_dict(path: Path) -> dict[str, Any]:
    """The weights in a checkpoint: mmengine's form (``state_dict`` among other things) or a bare state dict.

    Nothing in the file is executed (``weights_only``); files are mapped, not read whole.

    Returns:
        Tensors by name, without the prefix ``module.`` of distributed training.

    Raises:
        ModelLoadError: missing, truncated, refused, or no state dict in it.
    """
    where, content = str(path), read_checkpoint(path)
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not state:
        raise ModelLoadError("holds no state dict", where=where)
    strangers = [
        str(name) for name, value in state.items() if not isinstance(name, str) or not isinstance(value, torch.Tensor)
    ]
    if strangers:
        raise ModelLoadError(f"holds no state dict: {_some(strangers)} are not named tensors", where=where)
    odd = [f"{name} ({kind})" for name, value in state.items() if (kind := _odd_kind(value)) is not None]
    if odd:
        raise ModelLoadError(
            f"holds tensors that are not plain numbers: {_some(odd)}",
            where=where,
            hint="save the float model's weights",
        )
    prefix = "module." if all(name.startswith("module.") for name in state) else ""
    return {name.removeprefix(prefix): value for name, value in state.items()}


def _odd_kind(tensor: Any) -> str | None:
    """What a tensor is that no weight of ours can be; None for an ordinary one."""
    if tensor.is_meta:
        return "without data"
    if tensor.is_quantized:
        return "quantized"
    if tensor.is_complex():
        return "complex"
    return None if tensor.layout == torch.strided else "sparse"


def read_checkpoint(path: Path) -> Any:
    """Everything in a checkpoint, read as `read_state_dict` does.

    Raises:
        ModelLoadError: missing, no checkpoint, truncated, or refused.
    """
    where = str(path)
    if not path.is_file():
        raise ModelLoadError("no such checkpoint", where=where, hint="give its path as model.checkpoint")
    try:
        with torch.serialization.safe_globals(_training_log_types()):
            return _load(path)
    except pickle.UnpicklingError as error:
        _check_begin(path, error)
        refused = re.search(r"(?:GLOBAL|class|function) (\S+)", str(error))
        what = f"it contains '{refused[1]}'" if refused else "it contains more than weights"
        raise ModelLoadError(
            f"refused: {what}, which could run code when loaded",
            where=where,
            hint="save the weights alone: torch.save({'state_dict': model.state_dict()}, path)",
        ) from error
    except PermissionError as error:
        raise ModelLoadError("no permission to read it", where=where, hint="check the owner of the file") from error
    # An unpickler that runs on damaged bytes raises whatever these happen to mean.
    except Exception as error:
        _check_begin(path, error)
        raise ModelLoadError("not a whole PyTorch checkpoint", where=where, hint="copy or download it again") from error


def _check_begin(path: Path, error: Exception) -> None:
    """Raises ModelLoadError where a file that could not be loaded is no checkpoint at all, by how it begins."""
    with path.open("rb") as file:
        begin = file.read(len(_LFS_POINTER))
    if begin == _LFS_POINTER:
        raise ModelLoadError(
            "is a Git LFS pointer, not the file itself", where=str(path), hint="in its repository: git lfs pull"
        ) from error
    # An empty file may be one that was cut off.
    if begin and not begin.startswith(_CHECKPOINTS_BEGIN):
        raise ModelLoadError(
            "is not a PyTorch checkpoint", where=str(path), hint="give the file of torch.save as model.checkpoint"
        ) from error


def _load(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True, mmap=_can_be_mapped(path))


def _can_be_mapped(path: Path) -> bool:
    """Whether tensors lie in the file as they are: not in one of before PyTorch 1.6, nor in a compressed archive."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())


def _training_log_types() -> list[Any]:
    """Types in the training log that mmengine saves beside the weights: NumPy arrays and its history buffers.

    They hold numbers only. The buffers' methods are stored as ``getattr(HistoryBuffer, name)``: that name is given a
    function that does nothing.
    """
    from mmengine.logging.history_buffer import HistoryBuffer

    # NumPy takes the shape of a pickled array as it comes; ours is checked. It has moved these functions: files name
    # the old and new places.
    return [
        HistoryBuffer,
        pickled_arrays.Dtype,
        pickled_arrays.EmptyArray,
        (pickled_arrays.LoadedArray, "numpy.ndarray"),
        (pickled_arrays.dtype, "numpy.dtype"),
        *((pickled_arrays.reconstruct, f"{core}.multiarray._reconstruct") for core in ("numpy.core", "numpy._core")),
        *((pickled_arrays.scalar, f"{core}.multiarray.scalar") for core in ("numpy.core", "numpy._core")),
        (_no_method, "builtins.getattr"),
    ]


def _no_method(_owner: Any, _name: str) -> None:
    """Stands for the builtin ``getattr`` in a checkpoint."""


def load_weights(model: Any, path: Path) -> None:
    """Load a checkpoint into a model, strictly: every weight must be there, fit, and be a number.

    Weights stored in half precision are cast to the model's own type. Whole heads that the model has none of are left
    out: models are trained with and without them.

    Args:
        model: a torch.nn.Module; changed in place.
        path: the checkpoint.

    Raises:
        ModelLoadError: the file can't be read, or does not fit; lists what is missing, unexpected, or of another shape.
    """
    expected = model.state_dict()
    state = read_state_dict(path)
    heads_there, own_heads = (
        {match[1] for name in names if (match := _HEAD.match(name))} for names in (state, expected)
    )
    # Where the model has no head by such a name at all, it is another model.
    for head in sorted(heads_there - own_heads) if heads_there & own_heads else ():
        _log.info("%s: the weights of its %s are left out, the model has none", path, head)
        state = {name: value for name, value in state.items() if not name.startswith(f"{head}.")}
    # How many batches a batch norm has seen plays no part in inference, and old checkpoints don't have it.
    missing = [name for name in expected if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in expected]
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected
        if name in state and state[name].shape != expected[name].shape
    ]
    if missing or unexpected or shapes:
        problems = [
            f"{len(names)} {what}: {_some(names)}"
            for what, names in (
                ("weights are missing", missing),
                ("are unknown to the model", unexpected),
                ("have another shape", shapes),
            )
            if names
        ]
        raise ModelLoadError(
            "does not fit the model of the training config; " + "; ".join(problems),
            where=str(path),
            hint=_diagnosis(set(expected), set(state), missing, unexpected),
        )
    broken = [name for name, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if broken:
        raise ModelLoadError(
            f"{len(broken)} weights are NaN or infinite: {_some(broken)}",
            where=str(path),
            hint="the training diverged; use an earlier checkpoint",
        )
    model.load_state_dict(
        {name: value.to(expected[name].dtype) for name, value in state.items()} | _untracked(expected, state),
        strict=True,
    )


def _untracked(expected: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in expected.items() if name not in state}


def _some(names: list[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def _diagnosis(expected: set[str], found: set[str], missing: list[str], unexpected: list[str]) -> str:
    """What kind of mistake the differences look like."""
    if any(name.endswith("_quantizer.scale") for name in unexpected):
        return (
            "this is a quantized checkpoint, with batch norms folded in; model.checkpoint should be the original; "
            "quantization.enabled: true takes the quantized one from the workspace"
        )
    if len(expected & found) < _SAME_MODEL_SHARE * len(expected):
        return "this looks like the checkpoint of another model; check model.config and model.checkpoint"
    norms_gone = any(name.endswith("running_mean") for name in missing)
    if norms_gone and any(name.endswith(".bias") for name in unexpected):
        return (
            "its batch norms look fused into the convolutions, as quantization does; "
            "give the checkpoint from before the fusion"
        )
    if not missing and not unexpected:
        return "the layers are the same, their sizes differ: check in_channels (with or without intensity?) and classes"
    return "check that model.config is the config that this checkpoint was trained with"

"""The kernels of CenterPoint: their files, their arguments, and the macros that a model sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from runtime.cuda.gpu import C_TYPES, Kernels
from runtime.cuda.session import DeviceSession
from runtime.lidar.device_voxels import (
    HEADER_WORDS,
    VOXELIZE_FILE,
    VOXELIZE_SIGNATURES,
    float_literal,
    voxelize_constants,
)
from runtime.models.centerpoint.encoder import PillarEncoder
from runtime.models.centerpoint.parameters import ENCODER, HEAD, CenterPointParameters
from shared.spec import ModelSpec

_HERE = Path(__file__).parent
# In the order in which they build on each other.
FILES = (VOXELIZE_FILE, *(_HERE / f"{step}.cu" for step in ("decorate", "scatter", "decode", "circle_nms")))
ENCODE_FILE = _HERE / "encode.cu"

# The same names and numbers as in the .cu files.
KEPT = 16
STATE_WORDS = 16
BINS = 4096
MAX_BOXES = 1024
MAX_TASKS = HEADER_WORDS - KEPT
WARP = 32

# What one block of `encode_pillars` may take: warps, bytes of shared memory, and weights that a thread keeps.
_MOST_WARPS = 8
_SHARED_BYTES = 48 << 10
_MOST_WEIGHTS = 160

# Arguments: P an address, i an int32, f a float32, d a float64.
SIGNATURES = {
    "clear_canvas": "PPP",
    **VOXELIZE_SIGNATURES,
    "decorate": "PPPPPPPi",
    "scatter": "PPPPi",
    "decode_histogram": "PifPP",
    "decode_collect": "PifPP",
    "decode_boxes": "PPPPPPiiiiPPP",
    "circle_nms": "PPdiPP",
}
ENCODE_SIGNATURE = {"encode_pillars": "PPPPPPP"}


def load_kernels(
    spec: ModelSpec,
    parameters: CenterPointParameters,
    session: DeviceSession,
    stream: Any,
    encoder: PillarEncoder | None,
) -> Kernels:
    """The kernels, compiled for this model and loaded, by name.

    Args:
        spec, parameters: the model.
        session: its components.
        stream: where the kernels run.
        encoder: what ``encode_pillars`` is to compute; None: that kernel is left out.
    """
    encoder_in, encoder_out = spec.component(ENCODER).inputs[0].name, spec.component(ENCODER).outputs[0].name
    canvas, output = spec.component(HEAD).inputs[0].name, spec.component(HEAD).outputs[0].name
    constants = kernel_constants(
        parameters,
        feature_type=session.dtype(ENCODER, encoder_in),
        pillar_type=session.dtype(ENCODER, encoder_out),
        canvas_type=session.dtype(HEAD, canvas),
        output_type=session.dtype(HEAD, output),
        channels_last=session.channels_last(HEAD, canvas),
    )
    if encoder is None:
        return session.gpu.kernels(FILES, SIGNATURES, constants, stream)
    constants |= {
        "HIDDEN": str(encoder.hidden),
        "HALF": str(int(encoder.half)),
        "ENCODE_WARPS": str(encode_warps(encoder, parameters)),
        "ENCODE_BLOCKS": str(encode_blocks(encoder)),
    }
    return session.gpu.kernels((*FILES, ENCODE_FILE), SIGNATURES | ENCODE_SIGNATURE, constants, stream)


def encode_warps(encoder: PillarEncoder, parameters: CenterPointParameters) -> int:
    """Warps of a block of ``encode_pillars``; 0: the kernel can't serve this encoder."""
    features, slots = parameters.decoration, parameters.max_points_per_voxel
    inputs, hidden, channels = features.num_features, encoder.hidden, parameters.encoder_channels
    fits = (
        encoder.layers[0].weight.shape[0] == inputs
        and encoder.layers[-1].bias.size == channels
        and _columns(hidden or channels) * (inputs + 1) + _columns(channels) * (2 * hidden + 1) * (hidden > 0)
        <= _MOST_WEIGHTS
    )
    # The struct Pillar of encode.cu.
    floats = slots * (features.raw_features + inputs) + 6 + max(1, slots * hidden) + max(1, hidden)
    return min(_MOST_WARPS, _SHARED_BYTES // (floats * 4)) if fits else 0


def encode_blocks(encoder: PillarEncoder) -> int:
    """Blocks of ``encode_pillars`` that a multiprocessor runs at a time; more would have too few registers."""
    return 2 if encoder.hidden else 4


def _columns(channels: int) -> int:
    """Channels that a lane of a warp takes."""
    return -(-channels // WARP)


def kernel_constants(
    parameters: CenterPointParameters,
    *,
    feature_type: np.dtype[Any],
    pillar_type: np.dtype[Any],
    canvas_type: np.dtype[Any],
    output_type: np.dtype[Any],
    channels_last: bool,
) -> dict[str, str]:
    """The macros of the kernels for a model, see ``common.cu``. Floats are written exactly, in hexadecimal."""
    p = parameters
    constants: dict[str, str] = {
        **voxelize_constants(p, p.decoration.raw_features),
        "NUM_FEATURES": str(p.decoration.num_features),
        "CHANNELS": str(p.encoder_channels),
        "LEGACY": str(int(p.decoration.legacy)),
        "CLUSTER_CENTER": str(int(p.decoration.cluster_center)),
        "CENTER_AXES": str(p.decoration.center_axes),
        "MAX_NUM": str(p.bbox_coder.max_num),
        "SORTED": str(max(2, 1 << (p.bbox_coder.max_num - 1).bit_length())),
        "POST_MAX": str(p.nms.post_max_size),
        "NORM_BBOX": str(int(p.norm_bbox)),
        "Y_AXIS_REFERENCE": str(int(p.rot_y_axis_reference)),
        "FEATURE_T": C_TYPES[feature_type.name],
        "PILLAR_T": C_TYPES[pillar_type.name],
        "CANVAS_T": C_TYPES[canvas_type.name],
        "OUTPUT_T": C_TYPES[output_type.name],
        "CANVAS_CHANNEL": str(1 if channels_last else p.grid_size[0] * p.grid_size[1]),
        "CANVAS_CELL": str(p.encoder_channels if channels_last else 1),
    }
    for axis, name in enumerate("XYZ"):
        size, minimum = p.voxel_size[axis], p.point_cloud_range[axis]
        # As in `runtime.models.centerpoint.decorate`: the sum in double, rounded once.
        constants[f"CENTER_{name}"] = float_literal(size / 2 + minimum)
        constants[f"RANGE_{name}0"] = float_literal(p.bbox_coder.post_center_range[axis])
        constants[f"RANGE_{name}1"] = float_literal(p.bbox_coder.post_center_range[axis + 3])
    return constants

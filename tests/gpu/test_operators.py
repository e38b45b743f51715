"""One operator an engine: what it computes is what ONNX Runtime computes, or the build is refused.

TensorRT's parser skips attributes and inputs that it doesn't know, so that an engine may be built without a word and
answer something else. `trt_builder.compat` refuses the forms for which that was seen.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest

from shared.errors import BuildError, EnvironmentLacks
from tests.support import trt_run
from tests.support.operator_cases import Case, cases
from trt_builder.network import parse
from trt_builder.target import Target

onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed here; pip install onnxruntime")
pytestmark = pytest.mark.gpu
_log = logging.getLogger(__name__)


def build(target: Target, path: Path) -> bytes:
    """A plan in FP32.

    Raises:
        BuildError, EnvironmentLacks: refused, by us, the parser or the builder.
    """
    trt = target.tensorrt.trt
    builder = trt.Builder(trt_run.logger(target))
    network, parser = parse(
        target.tensorrt, builder, trt_run.logger(target), path, strongly_typed=False, component="one_operator"
    )
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    config.set_tactic_sources(0)
    # What is asked is what the parser reads; kernels that are faster still take most of the time.
    config.builder_optimization_level = 1
    plan = builder.build_serialized_network(network, config)
    del parser
    if plan is None:
        raise BuildError("no engine", where=path.name, hint="see TensorRT's own words")
    return bytes(plan)


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case.name)
def test_an_operator_is_right_or_refused(target: Target, tmp_path: Path, case: Case) -> None:
    path = tmp_path / "operator.onnx"
    onnx.save(case.model, str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (expected,) = session.run(["y"], {"x": case.x})
    try:
        plan = build(target, path)
    except (BuildError, EnvironmentLacks) as refusal:
        _log.info("refused: %s", refusal)
        return
    path.with_suffix(".engine").write_bytes(plan)
    runtime, engine = trt_run.load(target, path.with_suffix(".engine"))
    answer = trt_run.run(target, engine, {"x": case.x})["y"]
    del engine, runtime
    assert answer.shape == expected.shape
    np.testing.assert_allclose(answer, expected, rtol=1e-3, atol=1e-3)

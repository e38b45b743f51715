"""How NVIDIA's own programs build and run a graph as a job here does: the commands that an issue needs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from trt_builder.compat import TensorRT
from trt_builder.policies import Policy

_LOW = {"fp16": "--fp16", "bf16": "--bf16"}


@dataclass(frozen=True)
class Replay:
    """What the commands say about a build.

    Attributes:
        tensorrt: the TensorRT.
        policy: of the job.
        keep: names of the graph's nodes that stay in FP32.
        quantized: the graph has Q/DQ nodes.
        libraries: kernels may come from cuBLAS and cuDNN.
        optimization_level: the builder's.
        inputs: names of the graph's inputs; ``<position>.bin`` has what goes into each.
    """

    tensorrt: TensorRT
    policy: Policy
    keep: Sequence[str]
    quantized: bool
    libraries: bool
    optimization_level: int
    inputs: Sequence[str]

    def trtexec(self) -> str:
        """The command for ``trtexec`` (``tensorrt_rtx`` for TensorRT for RTX)."""
        words = ["tensorrt_rtx" if self.tensorrt.flavor == "rtx" else "trtexec", "--onnx=model.onnx"]
        words += self._types("--noTF32")
        if self.keep and self._by_flags():
            layers = ",".join(f"{name}:fp32" for name in self.keep)
            words += ["--precisionConstraints=obey", f"--layerPrecisions={layers}", f"--layerOutputTypes={layers}"]
        if self.tensorrt.flavor != "rtx":
            words.append(f"--builderOptimizationLevel={self.optimization_level}")
        if not self.libraries:
            words.append("--tacticSources=-CUBLAS,-CUBLAS_LT,-CUDNN")
        given = ",".join(f"{name}:{position}.bin" for position, name in enumerate(self.inputs))
        return shlex.join([*words, *([f"--loadInputs={given}"] if given else []), "--verbose"])

    def polygraphy(self, *, expected: bool) -> str:
        """The command for Polygraphy, which compares with the expected outputs where they are known."""
        words = ["polygraphy", "run", "model.onnx", "--trt", *self._types("")]
        if self._by_flags() and self.policy.tf32 is not False and not self.keep:
            words.append("--tf32")
        if self.keep and self._by_flags():
            words += ["--precision-constraints", "obey", "--layer-precisions"]
            words += [f"{name}:float32" for name in self.keep]
        if self.tensorrt.flavor != "rtx":
            words += ["--builder-optimization-level", str(self.optimization_level)]
        if not self.libraries:
            words.append("--tactic-sources")
        words += ["--load-inputs", "inputs.json", *(("--load-outputs", "expected.json") if expected else ())]
        command = shlex.join(words)
        return f"POLYGRAPHY_USE_TENSORRT_RTX=1 {command}" if self.tensorrt.flavor == "rtx" else command

    def _by_flags(self) -> bool:
        """Whether flags choose the precision; otherwise it is in the graph."""
        return self.tensorrt.weakly_typed and not self.policy.typed

    def _types(self, without_tf32: str) -> list[str]:
        if not self._by_flags():
            return [] if self.tensorrt.flavor == "rtx" else ["--stronglyTyped" if without_tf32 else "--strongly-typed"]
        words = [_LOW[self.policy.low]] if self.policy.low else []
        if self.quantized:
            words.append("--int8")
        if without_tf32 and (self.policy.tf32 is False or self.keep):
            words.append(without_tf32)
        return words

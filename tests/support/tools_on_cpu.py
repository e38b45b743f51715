"""Tools as on a machine with TensorRT and a GPU, whose places the double and kernels on the processor take::

KERNELS=folder python -m tests.support.tools_on_cpu TOOL ARGUMENT...

With SAMPLES, a run on the GPU stops (SIGSTOP) after so many, to be killed.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from pathlib import Path

import pytest

from runtime import model
from shared import cuda, engines
from shared.cuda import GpuInfo
from tests.support import engines_on_cpu, tensorrt_double
from tests.support.killed_at import signal_at
from trt_builder import target as targets
from trt_builder.compat import TensorRT
from trt_builder.target import Target

VERSION = "8.6.0"


def main() -> None:
    """Run the tool."""
    tool = sys.argv[1]
    with pytest.MonkeyPatch.context() as patch:
        gpu = GpuInfo(0, "NVIDIA H200", (9, 0), 132, 150 << 30)
        patch.setattr(cuda, "find_gpus", lambda: [gpu])
        if tool == "trt_builder":
            found = Target(TensorRT("tensorrt", tensorrt_double.make(VERSION), VERSION), gpu)
            patch.setattr(targets, "find", lambda wanted: found)
            patch.setattr(cuda, "use_gpu", lambda index=0: None)
            patch.setattr(engines, "layer_times", lambda trt, engine: {})
        elif tool == "runtime" and "tensorrt" in sys.argv:
            engines_on_cpu.use(patch, Path(os.environ["KERNELS"]), version=VERSION)
            patch.setattr(model, "package_versions", lambda names: {"tensorrt": VERSION})
            if samples := os.environ.get("SAMPLES"):
                signal_at("shared.sample_journal:SampleJournal.add", int(samples) + 1, signal.SIGSTOP)
        sys.argv = [tool, *sys.argv[2:]]
        importlib.import_module(f"{tool}.cli").cli(prog_name=tool)


if __name__ == "__main__":
    main()

"""Engines per precision policy: build time cold and warm, size, GPU time, precisions. Needs TensorRT and a GPU.

    python benchmarks/trt_engines.py --out engines.json                         networks of the 121 m model's size
    python benchmarks/trt_engines.py --work work/centerpoint --out engines.json the user's own

The first policy is built without a timing cache (cold), and once more with it (warm); the others find what the builds
before them measured. Times are those of the GPU alone: CUDA events around each request, opt shapes of the profile.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gpu_round_tables import engines_table
from shared import cuda, engines
from shared.errors import BuildError, DeployError
from shared.workspace import Workspace
from tests.support.trt_workspaces import full_size_workspace, quantize_workspace
from trt_builder import achieved, inspector
from trt_builder import target as targets
from trt_builder.build import build_all
from trt_builder.messages import Messages, make_logger

RUNS = 200


def main() -> None:
    """Build, measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--work", type=Path, help="workspace; without it one of full size is made")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the figures")
    parser.add_argument("--policies", nargs="+", default=["fp16", "fp32", "fp32_tf32", "auto", "strongly_typed"])
    parser.add_argument("--int8", action="store_true", help="build the heads with Q/DQ nodes in INT8 too")
    parser.add_argument("--set", dest="overrides", nargs="*", default=[], help="overrides of the config")
    parser.add_argument("--dump", type=Path, help="folder for the inspector's raw JSON")
    arguments = parser.parse_args()
    logging.basicConfig(level="INFO", format="%(asctime)s %(message)s", datefmt="%H:%M:%S")

    with tempfile.TemporaryDirectory() as folder:
        ws = Workspace.open(arguments.work) if arguments.work else full_size_workspace(Path(folder) / "full")
        shutil.rmtree(ws.path("tensorrt/timing"), ignore_errors=True)
        session = Loader()
        rows: list[dict[str, Any]] = []
        todo = [(ws, policy, index == 0) for index, policy in enumerate(arguments.policies)]
        if arguments.int8:
            todo.append((quantize_workspace(ws, Path(folder) / "int8"), "int8", True))
        for workspace, policy, cold in todo:
            rows += _measure(workspace, policy, session, arguments, cold=cold)
            # After every policy: a run that is cut short leaves what it has.
            arguments.out.write_text(json.dumps({"runs": RUNS, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    print(engines_table(rows))


@contextlib.contextmanager
def verdicts() -> Iterator[list[str]]:
    """Builds go on where the proof of the precision fails, so that there are figures all the same; what it said."""
    said: list[str] = []
    require = achieved.require

    def note(summary: Any, resolved: Any, *, component: str) -> None:
        try:
            require(summary, resolved, component=component)
        except BuildError as error:
            said.append(str(error))

    achieved.require = note
    try:
        yield said
    finally:
        achieved.require = require


class Loader:
    """TensorRT takes one logger per process."""

    def __init__(self) -> None:
        self.target = targets.find("auto")
        self.trt = self.target.tensorrt.trt
        self.logger = make_logger(self.trt, Messages(), layers=False)

    def load(self, ws: Workspace, record: Mapping[str, Any]) -> Any:
        """The engine of a record in the manifest."""
        cuda.use_gpu()
        return engines.deserialize(
            self.trt.Runtime(self.logger),
            ws.path(record["engine"]).read_bytes(),
            version_compatible=record["version_compatible"],
        )


def _measure(ws: Workspace, policy: str, session: Loader, arguments: Any, *, cold: bool) -> list[dict[str, Any]]:
    overrides = [f"tensorrt.precision_policy={policy}", *arguments.overrides]
    try:
        with verdicts() as rejected:
            build_all(ws.root, target="auto", overrides=overrides, force=True)
            first = records(ws, session.target.name(policy))
            if cold:
                build_all(ws.root, target="auto", overrides=overrides, force=True)
    except DeployError as error:
        print(f"{policy}: {error}")
        return [{"policy": policy, "error": str(error)}]
    rows = []
    for component, record in records(ws, session.target.name(policy)).items():
        engine = session.load(ws, record)
        times = engines.request_times(session.trt, engine, RUNS)
        if arguments.dump:
            arguments.dump.mkdir(parents=True, exist_ok=True)
            text = inspector.engine_information(session.trt, engine)
            (arguments.dump / f"{policy}-{component}.json").write_text(text, encoding="utf-8")
        rows.append(
            {
                "policy": policy,
                "component": component,
                "first_build_s": first[component]["build_seconds"],
                "first_build_cold": cold,
                "warm_build_s": record["build_seconds"] if cold else None,
                "megabytes": round(record["bytes"] / 1e6, 2),
                "gpu_ms_median": round(float(np.median(times)), 4),
                "gpu_ms_p99": round(float(np.percentile(times, 99)), 4),
                "achieved": record["achieved"],
                "rejected": sorted({said for said in rejected if said.startswith(component)}),
                "target": session.target.name(policy),
                "gpu": record["gpu"],
            }
        )
    return rows


def records(ws: Workspace, target: str) -> dict[str, dict[str, Any]]:
    """Component to what the manifest says about its engine for a target."""
    engines = ws.manifest().results["engines"]
    return {name.split("/", 1)[1]: value for name, value in engines.items() if name.split("/", 1)[0] == target}


if __name__ == "__main__":
    main()

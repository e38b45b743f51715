"""What verification catches: every planted fault, and none in the shipped models, in any precision.

    make centerpoint-all yolox-all calibration-all
    .venv/tools/bin/python -m benchmarks.faults --write              a quarter of an hour
    .venv/tools/bin/python -m benchmarks.faults --engines --write    the second table alone: seconds, no workspace

Plants each fault of `tests.support.faults` into a copy of the exported demo models, runs it in ONNX Runtime and judges
it against the framework's answers; judges what the demo models answered in TensorRT engines (`tests/data/h200`). Prints
both tables; ``--write`` puts them into docs/verification.md.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from shared.provenance import package_versions
from shared.workspace import Workspace
from tests.support import recorded
from tests.support.faults import FAULTS, Answers, Fault, Verdict, verdict
from verifier.tolerances import Tolerance, default_tolerance, judge

ROOT = Path(__file__).resolve().parents[1]
MODELS = {"centerpoint": "CenterPoint", "yolox": "YOLOX", "calibration": "calibration status"}
PAGE = ROOT / "docs" / "verification.md"


def planted_faults(workspaces: Mapping[str, Workspace]) -> Iterable[tuple[Fault, Verdict]]:
    """Every fault with the verifier's verdict, in order."""
    answers: Answers = {}
    for fault in FAULTS:
        with tempfile.TemporaryDirectory() as folder:
            found = verdict(fault, workspaces[fault.model], Path(folder) / "work", answers)
        print(f"{fault.model}, {fault.name}: {_checks(found, 'fp32')}; in FP16: {_checks(found, 'fp16')}", flush=True)
        yield fault, found


def fault_table(found: Iterable[tuple[Fault, Verdict]]) -> list[str]:
    """Lines of the table of faults, the check that has to catch one in bold."""
    lines = ["| model | fault | caught in FP32 by | for example | by FP16's limits |", "|---|---|---|---|---|"]
    for fault, each in found:
        caught = _checks(each, "fp32").replace(fault.caught_by, f"**{fault.caught_by}**")
        lines.append(
            f"| {MODELS[fault.model]} | {fault.name} | {caught} | {_example(fault, each)} | {_checks(each, 'fp16')} |"
        )
    return lines


def engine_table() -> list[str]:
    """Lines of the table of what engines answered, by the limits of their precision."""
    lines = [
        "| model | engines | verdict | least SNR | kept | error, in limits | shift, in limits | unmatched |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for model in recorded.models():
        path = recorded.FOLDER / f"{model}.npz"
        for policy in recorded.policies(path):
            task, compared = recorded.comparison(path, policy)
            limits = default_tolerance(policy, task)
            verdict_of = "; ".join(judge(compared, limits)) or "passed"
            cells = (MODELS[model], recorded.title(path, policy), verdict_of, *_figures(compared, limits))
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _figures(compared: Mapping[str, Any], limits: Tolerance) -> list[str]:
    """Least SNR, results that are kept, and the largest error, shift and share without a partner."""
    operating = compared["results"]["operating"]
    noise = [statistics["snr_db"] for statistics in compared["outputs"].values() if statistics["snr_db"] is not None]
    errors = [each["quantiles"]["0.9"] / limits.results.errors[name] for name, each in operating["errors"].items()]
    shifts = [abs(each["mean"]) / limits.results.shifts[name] for name, each in operating["shifts"].items()]
    least = operating["score"] or 0.0
    alone = max(
        sum(score >= least for score in compared["results"][f"{side}_unmatched"]) for side in ("reference", "test")
    )
    return [
        f"{min(noise):.1f} dB" if noise else "exact",
        str(operating["matched"]),
        f"{max(errors):.2f}",
        f"{max(shifts):.2f}",
        str(alone + operating["label_flips"]),
    ]


def _checks(found: Verdict, policy: str) -> str:
    return ", ".join(sorted(found.caught_by(policy))) or "no"


def _example(fault: Fault, found: Verdict) -> str:
    """The first statistic beyond its limit, of the check that has to catch the fault."""
    lines = [line for line in found.exact if line.startswith("results") == (fault.caught_by == "results")]
    return lines[0].replace("|", "") if lines else "-"


def planted(work: Path) -> list[str]:
    """Lines about the faults in the demo models."""
    workspaces = {model: Workspace.open(work / model) for model in MODELS}
    machine = f"{platform.processor() or platform.machine()}, {_versions()}"
    lines = fault_table(planted_faults(workspaces))
    title = f"{len(FAULTS)} faults in the demo models, run by ONNX Runtime ({machine}) against the framework's answers:"
    return [title, "", *lines]


def without_fault() -> list[str]:
    """Lines about the demo models' engines."""
    engines = recorded.machine(recorded.FOLDER / "centerpoint.npz")
    return [
        f"The demo models without a fault, in engines ({engines}), against ONNX Runtime: of what is kept, the",
        "largest error of nine of ten, the largest shift, and how many have no partner:",
        "",
        *engine_table(),
    ]


def _write(part: str, lines: list[str]) -> None:
    """Replace what stands between a part's marks."""
    begin, end = f"<!-- {part}: begin -->\n", f"<!-- {part}: end -->\n"
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(begin)
    _, after = rest.split(end)
    PAGE.write_text(before + begin + "\n".join(lines) + "\n" + end + after, encoding="utf-8")


def main() -> None:
    """Judge, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, default=ROOT / "work", help="folder of the exported demo models' workspaces"
    )
    parser.add_argument("--engines", action="store_true", help="judge what engines answered, and plant nothing")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/verification.md")
    options = parser.parse_args()
    parts = {} if options.engines else {"faults": planted(options.work)}
    parts["engines"] = without_fault()
    for part, lines in parts.items():
        print("\n".join(lines), end="\n\n")
        if options.write:
            _write(part, lines)


def _versions() -> str:
    return ", ".join(f"{name} {version}" for name, version in package_versions(("onnxruntime", "numpy")).items())


if __name__ == "__main__":
    main()

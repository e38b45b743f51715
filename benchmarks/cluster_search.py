"""How much faster do several workers measure choices of INT8 layers? `exporter quantize sensitivity --cluster local:N`.

    python benchmarks/cluster_search.py --folder work/search --workers 1 2 4 -- \
        --config configs/calibration_int8.yaml --num-samples 12

What comes after ``--`` goes to the command. Without a cluster and with each number of workers it has a workspace of its
own; all must find the same. The pace is that of the choices after the first ones, as many as there are workers: most of
the loading and calibrating, which a search of many choices pays once, is in the time of the command alone. On a machine
that does other work a pace says nothing: "load before" must be near 0. Needs the exporter's environment.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from shared.table import Table, number

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ("report.csv", "tables.txt", "skip.yaml")


def search(work: Path, words: list[str], workers: int | None) -> dict[str, Any]:
    """Run the command; its pace and how long it took."""
    spread = [] if workers is None else ["--cluster", f"local:{workers}"]
    command = [sys.executable, "-m", "exporter", "quantize", "sensitivity", "--work", str(work), *words, *spread]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    journal = work / "quantized/search/journal.jsonl"
    load, started = os.getloadavg()[0], time.perf_counter()
    times: list[float] = []
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            time.sleep(0.05)
            measured = len(journal.read_text().splitlines()) - 1 if journal.is_file() else 0
            times += [time.perf_counter()] * (measured - len(times))
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    # The float model's measurement comes first, alone.
    first = 1 + (workers or 1)
    return {
        "workers": workers,
        "command": time.perf_counter() - started,
        "choices": len(times),
        "per_second": (len(times) - first) / (times[-1] - times[first - 1]),
        "load": load,
        "found": [(work / "quantized/sensitivity" / name).read_text() for name in RESULTS],
    }


def table(runs: list[dict[str, Any]]) -> str:
    """What was measured, as text."""
    alone = runs[0]
    rows = [
        [
            "no cluster" if run["workers"] is None else f"local:{run['workers']}",
            number(run["command"], 1),
            number(run["per_second"], 2),
            number(run["per_second"] / alone["per_second"], 2),
            number(run["load"], 1),
        ]
        for run in runs
    ]
    title = f"{alone['choices']} choices on {len(os.sched_getaffinity(0))} processors"
    return Table(title, ["", "command [s]", "choices a second", "times", "load before"], rows).text()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for the workspaces; must not exist")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--out", type=Path)
    parser.add_argument("words", nargs="+", help="options of exporter quantize sensitivity")
    given = parser.parse_args()
    found = [search(given.folder / str(count or 0), given.words, count) for count in (None, *given.workers)]
    same = all(run.pop("found") == found[0]["found"] for run in reversed(found[1:]))
    found[0].pop("found")
    print(table(found))
    print("all found the same" if same else "they did NOT find the same")
    if given.out is not None:
        given.out.write_text(json.dumps({"runs": found, "same": same}, indent=1))
    sys.exit(0 if same else 6)

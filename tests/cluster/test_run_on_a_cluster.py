"""`runtime run` on a Ray cluster gives the workspace of a single process, whatever happens to the cluster meanwhile."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.runs import Run
from tests.support.ray_cluster import FRAMES, Nodes, Site, cluster_of, finished_pieces, kill, stopped, workers_of

pytestmark = pytest.mark.cluster
RUN = ("run", "--backend", "slow")


@pytest.fixture(scope="module")
def expected(site: Site) -> Path:
    """The workspace after a run of a single process."""
    work = Path(shutil.copytree(site.work, site.root / "expected"))
    answer = site.run(*RUN, "--work", str(work))
    assert answer.returncode == 0, answer.stderr
    return work


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with cluster_of(nodes=1) as cluster:
        yield cluster


def assert_same(work: Path, expected: Path) -> None:
    """The same files, with the same content but for latencies, and the same stage; every sample once."""
    here, there = ({str(path.relative_to(root)) for path in (root / "runs").rglob("*")} for root in (work, expected))
    assert here == there
    for name in sorted(here):
        if (work / name).is_file() and not name.endswith(("samples.jsonl", "journal.jsonl")):
            assert (work / name).read_bytes() == (expected / name).read_bytes(), name
    ours, theirs = (Run.open(root / "runs/slow-cpu") for root in (work, expected))
    assert ours.counters.values.keys() == theirs.counters.values.keys()
    assert all((ours.counters.values[name] == theirs.counters.values[name]).all() for name in ours.counters.values)
    stages = [json.loads((root / "manifest.json").read_text())["stages"]["run:slow-cpu"] for root in (work, expected)]
    for key in ("status", "key", "outputs", "results"):
        assert stages[0][key] == stages[1][key]


def test_a_run_is_that_of_a_single_process(site: Site, expected: Path, work: Path, nodes: Nodes) -> None:
    late = nodes.add()
    answer = site.run(*RUN, "--work", str(work), "--cluster", nodes.address)
    nodes.kill(late)
    assert answer.returncode == 0, answer.stderr
    assert f"run:slow-cpu: done, {FRAMES} samples" in answer.stdout
    assert_same(work, expected)
    again = site.run(*RUN, "--work", str(work), "--cluster", nodes.address)
    assert "up to date" in again.stdout
    shown = [line for line in answer.stderr.splitlines() if not re.match(r"\d\d:\d\d:\d\d ", line)]
    assert not shown, "Ray has no say in what is shown"


def test_workers_and_nodes_die_and_join(site: Site, expected: Path, work: Path, nodes: Nodes) -> None:
    doomed = nodes.add()
    with site.held() as release, site.running(*RUN, "--work", str(work), "--cluster", nodes.address) as running:
        running.wait_until(lambda: workers_of(doomed) and finished_pieces(work) >= 2)
        nodes.kill(doomed)
        (staying,) = workers_of(nodes.first)
        with stopped(staying):
            before = finished_pieces(work)
            late = nodes.add()
            running.wait_until(lambda: finished_pieces(work) > before)
            for process in workers_of(late):
                kill(process)
        release()
        assert running.end() == 0, running.output()
    nodes.kill(late)
    assert "died" in running.output(), running.output()
    assert_same(work, expected)


def test_samples_that_fail_are_named_and_the_others_done(site: Site, work: Path, nodes: Nodes) -> None:
    frames = Path(shutil.copytree(site.root / "frames", work.parent / "frames"))
    broken, deadly = frames / "005.bin", frames / "010.bin"
    broken.write_bytes(b"123")
    deadly.write_bytes(b"".join(frame.read_bytes() for frame in sorted(frames.iterdir())[20:30]))
    words = (*RUN, "--work", str(work), "--data", str(frames), "--num-samples", "16")
    answer = site.run(*words, "--cluster", nodes.address)
    assert answer.returncode == 3
    assert "2 of 16 samples can't be answered: 5, 10" in answer.stderr.splitlines()[-1]
    again = site.run(*words)
    assert again.returncode == 3
    assert "goes on at sample 5, 14 of 16 are done" in again.stderr


def test_a_full_disk_on_one_node_and_another_volume_on_another(
    site: Site, expected: Path, work: Path, nodes: Nodes
) -> None:
    """Nodes in mount namespaces of their own: one has 12 kB for pieces, the other plenty, but not where ours are."""
    volume = f"mkdir -p {work}/runs && mount -t tmpfs -o size={{}} none {work}/runs"
    if subprocess.run(["unshare", "-m", "sh", "-c", volume.format("12k")], check=False).returncode:
        pytest.skip("no mount namespaces here: needs root, or CAP_SYS_ADMIN")
    with contextlib.ExitStack() as started:
        for size in ("12k", "10m"):
            script = f'{volume.format(size)}; exec "$@"'
            started.enter_context(nodes.joined_in(["unshare", "-m", "sh", "-c", script, "-"]))
        release = started.enter_context(site.held())
        running = started.enter_context(site.running(*RUN, "--work", str(work), "--cluster", nodes.address))
        for said in ("no space left on the device", "what it wrote is not here"):
            running.wait_until(lambda said=said: said in running.output())
        release()
        assert running.end() == 0, running.output()
    assert_same(work, expected)


def refused(site: Site, work: Path, *words: str) -> str:
    """What `runtime run` says that does no work: one line."""
    answer = site.run(*RUN, "--work", str(work), *words)
    assert answer.returncode in (3, 4), answer.stderr
    assert not finished_pieces(work)
    (line,) = [line for line in answer.stderr.splitlines() if line.startswith("error: ")]
    return line


def test_a_node_without_the_data(site: Site, work: Path, nodes: Nodes) -> None:
    unmounted = f'mount -t tmpfs none {site.root}/frames && exec "$@"'
    if subprocess.run(["unshare", "-m", "sh", "-c", unmounted, "-", "true"], check=False).returncode:
        pytest.skip("no mount namespaces here: needs root, or CAP_SYS_ADMIN")
    with nodes.joined_in(["unshare", "-m", "sh", "-c", unmounted, "-"]):
        line = refused(site, work, "--cluster", nodes.address)
    assert re.search(r"node \S+: .*frames", line)


def test_nodes_without_a_gpu(site: Site, work: Path, nodes: Nodes) -> None:
    words = ("--device", "cuda", "--cluster", nodes.address)
    assert "no node of the cluster has a GPU" in refused(site, work, *words)
    pretending = nodes.add(num_gpus=1)
    line = refused(site, work, *words)
    nodes.kill(pretending)
    assert re.search(r"node \S+: CUDA finds no GPU", line)


def test_a_cluster_of_another_version(site: Site, work: Path, nodes: Nodes) -> None:
    with nodes.of_another_version("2.59.0"):
        line = refused(site, work, "--cluster", nodes.address)
    assert "another Ray or Python runs there" in line
    assert "2.59.0" in line


def test_the_head_is_killed_and_the_command_repeated(site: Site, expected: Path, work: Path) -> None:
    with (
        cluster_of(nodes=2) as first,
        site.held(),
        site.running(*RUN, "--work", str(work), "--cluster", first.address) as running,
    ):
        running.wait_until(lambda: finished_pieces(work) >= 2)
        first.kill_head()
        assert running.end() == 4, running.output()
    assert "is gone" in running.output().splitlines()[-1]
    kept = finished_pieces(work)
    again = site.run(*RUN, "--work", str(work), "--cluster", "local:2")
    assert again.returncode == 0, again.stderr
    assert kept and "goes on" in again.stderr
    assert_same(work, expected)


def test_workers_of_a_local_cluster_have_the_priority_of_the_command(site: Site) -> None:
    program = """
import os
from shared.cluster import Need, connect

def make():
    return os.nice

with connect("local:1") as cluster:
    (outcome,) = cluster.run([0], make, Need(gpu=False, module="shared", folders=[]))
print(outcome.value - os.nice(0))
"""
    environment = {name: value for name, value in site.environment.items() if name != "RAY_worker_niceness"}
    answer = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert answer.stdout == "0\n", answer.stderr

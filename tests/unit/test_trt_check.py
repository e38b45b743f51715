"""Will an engine load: from hand-made headers and records, without CUDA or TensorRT."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from shared import cuda
from shared.errors import DeployError, EnvironmentLacks, InputError, UsageError
from shared.plan import HEADER_BYTES, read_header
from shared.workspace import Workspace
from trt_builder import check as checks
from trt_builder import loadable
from trt_builder.check import run_checks
from trt_builder.cli import cli
from trt_builder.loadable import Machine, check, read_record

H200 = Machine({"tensorrt": "8.6.0", "rtx": "1.7.1.116"}, "sm90", "NVIDIA H200")
ADA = Machine({"tensorrt": "11.4.0.106"}, "sm89", "NVIDIA RTX 4090")


def plan(version: tuple[int, int, int, int] = (8, 6, 0, 12), magic: bytes = b"ftrt", *, says: int = 0) -> bytes:
    """A plan whose header says that it has ``says`` bytes; it has twice the header's."""
    return (magic + bytes(12) + says.to_bytes(8, "little") + bytes(version)).ljust(2 * HEADER_BYTES, b"\0")


def engine(folder: Path, content: bytes | None = None, **record: Any) -> Path:
    content = plan() if content is None else content
    path = folder / "x.engine"
    path.write_bytes(content)
    if record:
        whole = {
            "tensorrt": {"flavor": "tensorrt", "version": "8.6.0"},
            "architecture": "sm90",
            "gpu": {"name": "NVIDIA H200", "multiprocessors": 132},
            "version_compatible": False,
            "hardware_compatibility": "none",
            "bytes": len(content),
            **record,
        }
        (folder / "x.engine.json").write_text(json.dumps(whole), encoding="utf-8")
    return path


def test_the_header_says_who_wrote_it(tmp_path: Path) -> None:
    header = read_header(engine(tmp_path, plan((10, 9, 0, 34))))
    assert (header.flavor, header.version_text, header.version[3]) == ("tensorrt", "10.9.0", 34)
    assert read_header(engine(tmp_path, plan((1, 7, 1, 116), b"vtrt"))).flavor == "rtx"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "only 0 bytes: a truncated engine"),
        (b"ftrt" + bytes(30), "only 34 bytes"),
        (
            len(b'{"task": "detect"}').to_bytes(4, "little") + b'{"task": "detect"}' + plan(),
            r"JSON metadata of 18 bytes .*: tail -c \+23 cuts it off",
        ),
        (b'{"a": 1}' + plan(), "JSON stands in front of the plan"),
        (b"\x08\x08\x12\x07pytorch" + bytes(100), "an ONNX file, not an engine"),
        (b"PK\x03\x04" + bytes(100), "a zip archive"),
        (bytes(100), "not a TensorRT engine"),
    ],
)
def test_what_is_no_engine_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_header(engine(tmp_path, content))
    assert caught.value.exit_code == 3


def test_the_same_machine_loads_it(tmp_path: Path) -> None:
    verdict = check(engine(tmp_path, architecture="sm90"), H200)
    assert verdict.loads
    assert (verdict.reasons, verdict.warnings, verdict.command) == ([], [], "")


def test_another_version_and_gpu_is_one_sentence_each_and_a_command(tmp_path: Path) -> None:
    verdict = check(engine(tmp_path, architecture="sm90"), ADA, work=Path("work/centerpoint"))
    assert not verdict.loads
    assert verdict.built == "TensorRT 8.6.0 on sm90 (NVIDIA H200)"
    assert verdict.here == "TensorRT 11.4.0.106 on sm89 (NVIDIA RTX 4090)"
    assert verdict.reasons == [
        "it was built with 8.6.0, and 11.4.0.106 is installed here",
        "it was built on sm90, and the GPU here is sm89",
    ]
    assert verdict.command == "trt_builder build --work work/centerpoint --target tensorrt --force"


@pytest.mark.parametrize(
    ("built", "here", "loads"),
    [("10.9.0", "10.16.1", True), ("10.9.0", "11.4.0", True), ("10.16.1", "10.9.0", False), ("8.6.0", "10.9.0", False),
     ("11.1.0", "10.9.0", False)],
)  # fmt: skip
def test_version_compatible_engines_load_forward_only(tmp_path: Path, built: str, here: str, loads: bool) -> None:
    path = engine(tmp_path, tensorrt={"flavor": "tensorrt", "version": built}, version_compatible=True)
    assert check(path, Machine({"tensorrt": here}, "sm90", "NVIDIA H200")).loads is loads


@pytest.mark.parametrize(
    ("level", "architecture", "loads"),
    [("ampere_plus", "sm80", True), ("ampere_plus", "sm75", False), ("none", "sm80", False),
     ("same_compute_capability", "sm90", True), ("same_compute_capability", "sm89", False)],
)  # fmt: skip
def test_hardware_compatibility_widens_the_gpus(tmp_path: Path, level: str, architecture: str, loads: bool) -> None:
    path = engine(tmp_path, hardware_compatibility=level)
    assert check(path, Machine({"tensorrt": "8.6.0"}, architecture, "GPU")).loads is loads


def test_another_gpu_of_the_same_architecture_is_worth_a_note(tmp_path: Path) -> None:
    verdict = check(engine(tmp_path, architecture="sm90"), Machine({"tensorrt": "8.6.0"}, "sm90", "NVIDIA H100"))
    assert verdict.loads
    assert "may be slower" in verdict.warnings[0]


def test_without_a_record_version_is_checked_and_the_gpu_unknown(tmp_path: Path) -> None:
    verdict = check(engine(tmp_path), H200)
    assert verdict.loads
    assert "no record" in verdict.warnings[0]
    assert not check(engine(tmp_path, plan((10, 9, 0, 34))), H200).loads


def test_without_tensorrt_or_gpu_nothing_loads_and_no_command_is_given(tmp_path: Path) -> None:
    verdict = check(engine(tmp_path, architecture="sm90"), Machine({}, None, None))
    assert verdict.reasons == ["TensorRT is not installed here", "there is no GPU here"]
    assert verdict.command == ""


def test_rtx_engines_run_on_rtx_cards_only(tmp_path: Path) -> None:
    content = plan((1, 7, 1, 116), b"vtrt")
    path = engine(
        tmp_path, content, tensorrt={"flavor": "rtx", "version": "1.7.1.116"}, architecture="portable", gpu=None
    )
    assert check(path, Machine({"rtx": "1.7.1.116"}, "sm89", "RTX 4090")).loads
    assert check(path, H200).reasons == ["TensorRT for RTX does not run on sm90"]
    assert check(path, Machine({"rtx": "1.7.1.116"}, "sm120", "RTX 5090")).loads
    assert not check(path, Machine({"rtx": "1.7.1.116"}, "sm75", "RTX 2080")).loads
    assert not check(path, Machine({"rtx": "1.8.0"}, "sm89", "RTX 4090")).loads


def test_a_truncated_engine_is_an_input_error(tmp_path: Path) -> None:
    path = engine(tmp_path, architecture="sm90")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError, match=r"its record says .* truncated or replaced"):
        check(path, H200)


def test_without_a_record_the_header_tells_the_length_or_nothing_does(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has 128 bytes, its header says 129: truncated"):
        check(engine(tmp_path, plan(says=129)), H200)
    unknown = "its length is not known without the record: it may be cut short"
    assert unknown not in check(engine(tmp_path, plan(says=128)), H200).warnings
    assert unknown in check(engine(tmp_path, plan()), H200).warnings
    # A record knows better than a field that is not documented.
    assert check(engine(tmp_path, plan(says=129), architecture="sm90"), H200).loads


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"tensorrt": {}}'])
def test_a_record_that_is_none_is_an_input_error(tmp_path: Path, text: str) -> None:
    path = engine(tmp_path)
    (tmp_path / "x.engine.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError):
        read_record(path)


def test_the_command_prints_the_verdict_and_fails_when_one_does_not_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "this_machine", lambda: ADA)
    path = engine(tmp_path, architecture="sm90")
    with pytest.raises(EnvironmentLacks, match="this engine will not load here") as refused:
        run_checks(path, None, version=None, architecture=None)
    assert refused.value.answer is not None
    assert refused.value.answer.data["engines"][0]["outcome"] == "refused"
    assert refused.value.answer.splitlines()[0].endswith(
        "will NOT load: built with TensorRT 8.6.0 on sm90 (NVIDIA H200); "
        "here TensorRT 11.4.0.106 on sm89 (NVIDIA RTX 4090)"
    )
    assert run_checks(path, None, version="8.6.0", architecture="sm90").data["engines"][0]["loads"]


def workspace(folder: Path, **targets: dict[str, Any]) -> Workspace:
    """A workspace with an engine per target, by the names of the targets; their records say the rest."""
    ws = Workspace.create(folder / "ws")
    for target, record in targets.items():
        with ws.stage(f"build:{target}", tool="trt_builder", config=record) as stage:
            content = plan()
            whole = {"tensorrt": {"flavor": "tensorrt", "version": "8.6.0"}, "architecture": "sm90", "gpu": None,
                     "bytes": len(content), **record}  # fmt: skip
            name = f"tensorrt/{target}/x.engine"
            with stage.artifact(name, kind="engine") as path:
                path.write_bytes(content)
            with stage.artifact(f"{name}.json", kind="engine-record") as path:
                path.write_text(json.dumps(whole), encoding="utf-8")
            stage.result("engines", f"{target}/x", {"engine": name, **whole})
    return ws


def checked(ws: Workspace, **instead: str | None) -> tuple[list[str], DeployError | None]:
    """What the check of a workspace says, and how it ends."""
    whole: dict[str, Any] = {"version": None, "architecture": None, **instead}
    try:
        return run_checks(None, ws.root, **whole).splitlines(), None
    except DeployError as error:
        assert error.answer is not None
        return error.answer.splitlines(), error


def test_every_engine_of_a_workspace_is_told_of_and_what_is_missing_for_others_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "this_machine", lambda: H200)
    ws = workspace(tmp_path, other={"architecture": "sm87"}, ours={})
    shutil.rmtree(ws.path("tensorrt/other"))
    lines, error = checked(ws)
    assert error is None
    assert "other/x.engine: is MISSING (would not load here): built with TensorRT 8.6.0 on sm87; here" in lines[0]
    assert "copy it here" in lines[1]
    assert "run again: " in lines[1]
    assert "ours/x.engine: loads: built with TensorRT 8.6.0 on sm90" in lines[2]
    shutil.rmtree(ws.path("tensorrt/ours"))
    lines, error = checked(ws)
    assert "ours/x.engine: is MISSING (would load here)" in lines[2]
    assert isinstance(error, InputError)
    assert "1 of 2 engines are missing, damaged or not finished" in str(error)
    # For a third machine both are for others, and nothing is left to load.
    lines, error = checked(ws, version="10.9.0")
    assert isinstance(error, EnvironmentLacks)
    assert "2 of 2 engines will not load here" in str(error)


def test_the_manifest_knows_an_engine_whose_record_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "this_machine", lambda: H200)
    ws = workspace(tmp_path, other={"architecture": "sm80"})
    ws.path("tensorrt/other/x.engine.json").unlink()
    lines, error = checked(ws)
    assert "  it was built on sm80, and the GPU here is sm90" in lines
    assert isinstance(error, EnvironmentLacks)


@pytest.mark.parametrize("content", [plan()[:-1], plan(says=1)])
def test_a_damaged_engine_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(checks, "this_machine", lambda: H200)
    ws = workspace(tmp_path, a={}, b={"architecture": "sm80"}, c={})
    ws.path("tensorrt/a/x.engine").write_bytes(content)
    lines, error = checked(ws)
    assert "a/x.engine: FAULTY: " in lines[0]
    assert sum("will NOT load" in line for line in lines) == 1
    assert sum(": loads: " in line for line in lines) == 1
    assert isinstance(error, InputError)
    with pytest.raises(InputError):
        run_checks(ws.root / "tensorrt/a/x.engine", ws.root, version=None, architecture=None)


def test_another_version_is_of_the_tensorrt_that_it_can_be(tmp_path: Path) -> None:
    path = engine(tmp_path, architecture="sm90")
    with pytest.raises(EnvironmentLacks) as refused:
        run_checks(path, None, version="1.7.1", architecture="sm90")
    assert "\n  TensorRT is not installed here" in str(refused.value.answer)
    with pytest.raises(UsageError, match="--tensorrt latest is no version"):
        run_checks(path, None, version="latest", architecture="sm90")


def test_check_needs_neither_cuda_nor_tensorrt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cuda, "find_gpus", list)
    monkeypatch.setattr(importlib.metadata, "version", _not_installed)
    here = loadable.this_machine()
    assert here == Machine({}, None, None)
    answer = CliRunner().invoke(cli, ["check", str(engine(tmp_path))])
    assert answer.exit_code == 4


def _not_installed(name: str) -> str:
    raise importlib.metadata.PackageNotFoundError(name)

"""Will an engine load: from hand-made headers and records, without CUDA or TensorRT."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from shared.errors import EnvironmentLacks, InputError
from shared.plan import HEADER_BYTES, read_header
from trt_builder import check as check_module
from trt_builder import checks, gpu
from trt_builder.check import Here, check, read_record
from trt_builder.checks import run_checks
from trt_builder.cli import cli

H200 = Here({"tensorrt": "8.6.0", "rtx": "1.7.1.116"}, "sm90", "NVIDIA H200")
ADA = Here({"tensorrt": "11.4.0.106"}, "sm89", "NVIDIA RTX 4090")


def plan(version: tuple[int, int, int, int] = (8, 6, 0, 12), magic: bytes = b"ftrt") -> bytes:
    return magic + bytes(20) + bytes(version) + bytes(HEADER_BYTES)


def engine(folder: Path, content: bytes | None = None, **record: Any) -> Path:
    content = plan() if content is None else content
    path = folder / "x.engine"
    path.write_bytes(content)
    if record:
        whole = {
            "tensorrt": {"flavour": "tensorrt", "version": "8.6.0"},
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
    assert (header.flavour, header.version_text, header.version[3]) == ("tensorrt", "10.9.0", 34)
    assert read_header(engine(tmp_path, plan((1, 7, 1, 116), b"vtrt"))).flavour == "rtx"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "only 0 bytes: a truncated engine"),
        (b"ftrt" + bytes(30), "only 34 bytes"),
        (
            len(b'{"task": "detect"}').to_bytes(4, "little") + b'{"task": "detect"}' + plan(),
            "JSON metadata of 18 bytes",
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
    path = engine(tmp_path, tensorrt={"flavour": "tensorrt", "version": built}, version_compatible=True)
    assert check(path, Here({"tensorrt": here}, "sm90", "NVIDIA H200")).loads is loads


@pytest.mark.parametrize(
    ("level", "architecture", "loads"),
    [("ampere_plus", "sm80", True), ("ampere_plus", "sm75", False), ("none", "sm80", False),
     ("same_compute_capability", "sm90", True), ("same_compute_capability", "sm89", False)],
)  # fmt: skip
def test_hardware_compatibility_widens_the_gpus(tmp_path: Path, level: str, architecture: str, loads: bool) -> None:
    path = engine(tmp_path, hardware_compatibility=level)
    assert check(path, Here({"tensorrt": "8.6.0"}, architecture, "GPU")).loads is loads


def test_another_gpu_of_the_same_architecture_is_worth_a_note(tmp_path: Path) -> None:
    verdict = check(engine(tmp_path, architecture="sm90"), Here({"tensorrt": "8.6.0"}, "sm90", "NVIDIA H100"))
    assert verdict.loads
    assert "may be slower" in verdict.warnings[0]


def test_without_a_record_version_is_checked_and_the_gpu_unknown(tmp_path: Path) -> None:
    verdict = check(engine(tmp_path), H200)
    assert verdict.loads
    assert "no record" in verdict.warnings[0]
    assert not check(engine(tmp_path, plan((10, 9, 0, 34))), H200).loads


def test_without_tensorrt_or_gpu_nothing_loads_and_no_command_is_given(tmp_path: Path) -> None:
    verdict = check(engine(tmp_path, architecture="sm90"), Here({}, None, None))
    assert verdict.reasons == ["TensorRT is not installed here", "there is no GPU here"]
    assert verdict.command == ""


def test_rtx_engines_run_on_rtx_cards_only(tmp_path: Path) -> None:
    content = plan((1, 7, 1, 116), b"vtrt")
    path = engine(
        tmp_path, content, tensorrt={"flavour": "rtx", "version": "1.7.1.116"}, architecture="portable", gpu=None
    )
    assert check(path, Here({"rtx": "1.7.1.116"}, "sm89", "RTX 4090")).loads
    assert check(path, H200).reasons == ["TensorRT for RTX does not run on sm90"]
    assert check(path, Here({"rtx": "1.7.1.116"}, "sm120", "RTX 5090")).loads
    assert not check(path, Here({"rtx": "1.7.1.116"}, "sm75", "RTX 2080")).loads
    assert not check(path, Here({"rtx": "1.8.0"}, "sm89", "RTX 4090")).loads


def test_a_truncated_engine_and_a_changed_one_are_input_errors(tmp_path: Path) -> None:
    path = engine(tmp_path, architecture="sm90")
    with pytest.raises(InputError, match="differs from its hash in the manifest"):
        check(path, H200, sha256="0" * 64)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError, match=r"its record says .* truncated or replaced"):
        check(path, H200)


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
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
    lines: list[str] = []
    with pytest.raises(EnvironmentLacks, match="1 of 1 engines will not load here"):
        run_checks(path, None, version=None, architecture=None, say=lines.append)
    assert lines[0].endswith("will NOT load: built with TensorRT 8.6.0 on sm90 (NVIDIA H200); "
                             "here TensorRT 11.4.0.106 on sm89 (NVIDIA RTX 4090)")  # fmt: skip
    run_checks(path, None, version="8.6.0", architecture="sm90", say=lines.append)


def test_check_needs_neither_cuda_nor_tensorrt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpu, "find_gpus", list)
    monkeypatch.setattr(importlib.metadata, "version", _not_installed)
    here = check_module.this_machine()
    assert here == Here({}, None, None)
    answer = CliRunner().invoke(cli, ["check", str(engine(tmp_path))])
    assert answer.exit_code == 4


def _not_installed(name: str) -> str:
    raise importlib.metadata.PackageNotFoundError(name)

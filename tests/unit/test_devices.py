"""Devices by name, and packages that do not load on them."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.devices import Device, parse_device
from shared.errors import EnvironmentLacks, UsageError
from shared.lazy import lazy_import


@pytest.mark.parametrize(
    ("text", "device"),
    [("cpu", Device("cpu")), ("cuda", Device("cuda", 0)), ("cuda:3", Device("cuda", 3)), ("second", Device("cuda", 1))],
)
def test_names_and_aliases(text, device):
    assert parse_device(text, {"second": "cuda:1"}) == device


def test_the_full_name():
    assert str(parse_device("cuda")) == "cuda:0"
    assert str(parse_device("cpu")) == "cpu"


@pytest.mark.parametrize("text", ["gpu", "cuda:", "cuda:x", "CPU", "", "cpu:0"])
def test_anything_else_is_refused_with_what_there_is(text):
    with pytest.raises(UsageError, match="cuda:N, second"):
        parse_device(text, {"second": "cuda:1"})


def test_what_there_is_is_named_once():
    with pytest.raises(UsageError) as refusal:
        parse_device("gpu", {"cpu": "cpu", "cuda": "cuda:0", "second": "cuda:1"})
    assert refusal.value.hint == "choose one of: cpu, cuda, cuda:N, second"


@pytest.mark.parametrize("error", ["ImportError('undefined symbol')", "OSError('libnvinfer.so.10: not found')"])
def test_a_package_whose_libraries_do_not_load_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    (tmp_path / "half_installed.py").write_text(f"raise {error}")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(EnvironmentLacks, match=r"'half_installed' can't be imported.*install it with: pip"):
        _ = lazy_import("half_installed", install="pip").anything

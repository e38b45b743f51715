"""Devices by name."""

from __future__ import annotations

import pytest

from runtime.devices import Device, parse_device
from shared.errors import UsageError


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

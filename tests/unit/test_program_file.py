"""A program from somebody else is data: it runs on tensors, or is refused; no way of making it run code is left."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.errors import ModelLoadError
from shared.program_expressions import check_expression, check_guard
from shared.program_file import read_program

torch = pytest.importorskip("torch")

MODEL = "archive/models/model.json"
WEIGHTS = "archive/data/weights/model_weights_config.json"
CONSTANTS = "archive/data/constants/model_constants_config.json"
SAMPLE_INPUTS = "archive/data/sample_inputs/model.pt"

Members = dict[str, bytes]


class Layers(torch.nn.Module):
    """Parameters, a buffer, a constant, two dynamic axes that depend on one another."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(2, 3, 3, stride=2, padding=1)
        self.norm = torch.nn.BatchNorm2d(3)
        self.constant = torch.ones(3, 1, 1)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Two tensors."""
        out = self.norm(self.layer(image)) + self.constant
        return torch.relu(out), out.reshape(image.shape[0], 3, -1)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "archive.pt2"
    auto = torch.export.Dim.DYNAMIC
    exported = torch.export.export(
        Layers().eval(), (torch.zeros(2, 2, 16, 24),), dynamic_shapes=({2: auto, 3: auto},), strict=False
    )
    torch.export.save(exported, path)
    return path


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self._code = f"open({str(marker)!r}, 'w')"

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (self._code,)


def rewritten(program: Path, folder: Path, change: Callable[[Members], None]) -> Path:
    with zipfile.ZipFile(program) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    path = folder / "changed.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def in_json(member: str, change: Callable[[Any], None]) -> Callable[[Members], None]:
    def apply(members: Members) -> None:
        value = json.loads(members[member])
        change(value)
        members[member] = json.dumps(value).encode()

    return apply


def first_of(table: Any) -> Any:
    return next(iter(table["config"].values()))


def nodes(model: Any) -> Any:
    return model["graph_module"]["graph"]["nodes"]


def pickled_weight(members: Members, marker: Path) -> None:
    def change(table: Any) -> None:
        first_of(table).update(use_pickle=True, path_name="weight_0")

    in_json(WEIGHTS, change)(members)
    members["archive/data/weights/weight_0"] = saved(marker)


def saved(marker: Path) -> bytes:
    content = io.BytesIO()
    torch.save(Payload(marker), content)
    return content.getvalue()


def opaque_constant(members: Members, marker: Path) -> None:
    in_json(CONSTANTS, lambda table: first_of(table).update(use_pickle=True, path_name="opaque_obj_0"))(members)
    members["archive/data/constants/opaque_obj_0"] = pickle.dumps(Payload(marker))


def custom_object(members: Members, marker: Path) -> None:
    in_json(CONSTANTS, lambda table: first_of(table).update(use_pickle=True, path_name="custom_obj_0"))(members)
    members["archive/data/constants/custom_obj_0"] = saved(marker)


def weights_of_before(members: Members, marker: Path) -> None:
    members["archive/data/weights/model.pt"] = saved(marker)


def constants_of_before(members: Members, marker: Path) -> None:
    members["archive/data/constants/model.pt"] = saved(marker)


def second_model(members: Members, marker: Path) -> None:
    members["archive/models/other.json"] = members[MODEL]
    members["archive/data/sample_inputs/other.pt"] = saved(marker)


def size_that_is_code(members: Members, marker: Path) -> None:
    def change(model: Any) -> None:
        text = json.dumps(model["graph_module"]["graph"]["tensor_values"])
        symbol = next(word for word in text.split('"') if word.startswith("Symbol("))
        replaced = text.replace(symbol, f"__import__('pathlib').Path('{marker}').touch() or {symbol}")
        model["graph_module"]["graph"]["tensor_values"] = json.loads(replaced)

    in_json(MODEL, change)(members)


def guard_that_is_code(members: Members, marker: Path) -> None:
    in_json(MODEL, lambda model: model.update(guards_code=[f"open('{marker}', 'w') != 1"]))(members)


def operator_that_loads(members: Members, marker: Path) -> None:
    """Below ``torch`` lie modules that import os."""

    def change(model: Any) -> None:
        node = nodes(model)[0]
        node["target"] = "torch.serialization.os.mkdir"
        node["inputs"] = [{"name": "path", "arg": {"as_string": str(marker)}, "kind": 1}]

    in_json(MODEL, change)(members)


def operator_that_makes_a_file(members: Members, marker: Path) -> None:
    def change(model: Any) -> None:
        node = nodes(model)[-1]
        node["target"] = "torch.ops.aten.from_file.default"
        node["inputs"] = [
            {"name": "filename", "arg": {"as_string": str(marker)}, "kind": 1},
            {"name": "shared", "arg": {"as_bool": True}, "kind": 1},
            {"name": "size", "arg": {"as_int": 24}, "kind": 1},
        ]

    in_json(MODEL, change)(members)


def name_that_is_code(members: Members, marker: Path) -> None:
    text = members[MODEL].decode()
    assert '"image"' in text
    code = f"image=[open(str('{marker}'), 'w')]"
    members[MODEL] = text.replace('"image"', json.dumps(code)).encode()


def compiled_library(members: Members, marker: Path) -> None:
    members["archive/data/aotinductor/model/model.so"] = str(marker).encode()


ATTACKS = [
    pickled_weight,
    opaque_constant,
    custom_object,
    weights_of_before,
    constants_of_before,
    second_model,
    size_that_is_code,
    guard_that_is_code,
    operator_that_loads,
    operator_that_makes_a_file,
    name_that_is_code,
    compiled_library,
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: str(attack.__name__))
def test_a_program_that_would_run_code_is_refused_in_one_line(program, tmp_path, attack):
    marker = tmp_path / "marker"
    path = rewritten(program, tmp_path, lambda members: attack(members, marker))
    with pytest.raises(ModelLoadError, match="refused") as caught:
        read_program(path)
    assert "\n" not in str(caught.value)
    assert not marker.exists()


# The others fail in PyTorch 2.13 before anything runs; none of them is needed for a program to run.
RUN_BY_PYTORCH = [
    attack for attack in ATTACKS if attack not in (custom_object, second_model, operator_that_loads, compiled_library)
]


@pytest.mark.parametrize("attack", RUN_BY_PYTORCH, ids=lambda attack: str(attack.__name__))
def test_pytorch_itself_would_run_them(program, tmp_path, attack):
    """What the test above refuses is dangerous, or it would prove nothing."""
    marker = tmp_path / "marker"
    path = rewritten(program, tmp_path, lambda members: attack(members, marker))
    with contextlib.suppress(Exception):  # it may say something about it afterwards
        torch.export.load(path).module()(torch.zeros(2, 2, 16, 24))
    assert marker.exists()


def test_sample_inputs_are_never_unpickled(program, tmp_path):
    marker = tmp_path / "marker"
    path = rewritten(program, tmp_path, lambda members: members.update({SAMPLE_INPUTS: saved(marker)}))
    torch.export.load(read_program(path))
    assert not marker.exists()


def test_a_program_that_is_read_so_computes_the_same(program):
    image = torch.randn(2, 2, 40, 56)
    expected = torch.export.load(program).module()(image)
    for answer, wanted in zip(torch.export.load(read_program(program)).module()(image), expected, strict=True):
        assert torch.equal(answer, wanted)


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive at all", b"\x80\x02."])
def test_what_is_no_program_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "program.pt2"
    path.write_bytes(content)
    with pytest.raises(ModelLoadError):
        read_program(path)


@pytest.mark.parametrize(
    "text",
    [
        "Symbol('s0', positive=True, integer=True)",
        "Add(FloorDiv(Add(Symbol('s47', positive=True, integer=True), Integer(-1)), Integer(2)), Integer(1))",
        "Pow(Symbol('s0', positive=True, integer=True), Integer(2))",
        "2*s0 + 1",
    ],
)
def test_sizes_are_arithmetic(text):
    assert check_expression(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "Symbol('s0').__class__",
        "(lambda: 1)()",
        "Integer(9)**Integer(9)**Integer(9)",
        "Pow(Pow(Integer(9), Integer(8)), Integer(8))",
        "Pow(Integer(9), Integer(100))",
        "Add(*[Integer(1)])",
        "[s0 for s0 in s1]",
        "Integer(99999999999999999999999)",
        "Symbol('__import__')",
        "s0[0]",
        "(" * 5000,
    ],
)
def test_what_is_more_than_arithmetic_is_no_size(text):
    assert check_expression(text) is not None


def test_guards_may_ask_inputs_for_their_sizes_and_nothing_else():
    assert check_guard("(1 + (((-1) + L['image'].size()[3]) // 8)) != 1") is None
    assert check_guard("(max(1, L['image'].size()[3] // 2)*max(1, L['image'].size()[2])**2) != math.ceil(2.5)") is None
    assert check_guard("L['image'].__class__ != 1") is not None
    assert check_guard("torch.load('x') != 1") is not None
    assert check_guard("max.size(max, 1) != 1") is not None
    assert check_guard("2**L['image'].size()[0] != 1") is not None
    assert check_guard("L['image'].size(open('x')) != 1") is not None
    assert check_guard("print(L['image'])") is not None

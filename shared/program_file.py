"""Programs of ``torch.export`` (``.pt2``) as data: what PyTorch gets to read can't name code.

``torch.export.load`` unpickles weights, constants, custom objects and sample inputs with code, evaluates symbolic
expressions and guards as Python, resolves operators by any name below ``torch``, and compiles Python from the names in
the graph. So a program is not handed to it as it is: its parts are read here, each is checked, and PyTorch gets a new
archive of those parts alone, which holds no pickle.

The layout is that of PyTorch's ``torch/export/pt2_archive`` and ``torch/_export/serde/schema.py``.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from shared.errors import ModelLoadError
from shared.json_reader import parse_json
from shared.program_expressions import check_expression, check_guard
from shared.regular_files import open_regular

_MODEL = "models/model.json"
_TABLES = {
    "data/weights/model_weights_config.json": re.compile(r"weight_\d+"),
    "data/constants/model_constants_config.json": re.compile(r"tensor_\d+"),
}
# Replaced by nothing: they are a pickle, and no program needs them to run.
_SAMPLE_INPUTS = "data/sample_inputs/model.pt"
_MARKS = ("archive_format", "archive_version", "byteorder", ".data/version")
_LEFT_OUT = (_SAMPLE_INPUTS, ".data/serialization_id")
_MOST_BYTES_OF_JSON = 256 << 20

_PLAIN_TEXT = re.compile(r"[A-Za-z0-9_.+-]*")
# Arithmetic on tensors and sizes. from_file maps a file into memory, and makes it where it is missing.
_OPERATORS = re.compile(
    r"torch\.ops\.aten\.(?!from_file\b)(?:(?!__)[a-z0-9_]+|__(?:and|or|xor|lshift|rshift)__)\.[A-Za-z][A-Za-z0-9_]*"
    r"|torch\.sym_(?:int|float|max|min|not|ite|sqrt|sum)"
    r"|_operator\.(?:add|sub|mul|floordiv|truediv|mod|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|getitem)"
    r"|math\.(?:ceil|floor|trunc)"
)
# Objects with code of their own, and graphs in graphs.
_REFUSED_KEYS = {"as_custom_obj", "as_operator", "as_graph", "custom_obj", "token"}
_CONTAINERS = {"builtins.tuple": ("null",), "builtins.list": ("null",), "builtins.dict": ("[]",), None: (None,)}
_DEEPEST_CONTAINER = 10


def read_program(path: Path) -> io.BytesIO:
    """The program in ``path`` for ``torch.export.load``, without anything that runs code when it is read.

    Raises:
        ModelLoadError: not a program of ``torch.export``, damaged, of a format before PyTorch 2.8, or with something in
            it that a program of tensors does not need.
    """
    try:
        with open_regular(path, error=ModelLoadError) as file, zipfile.ZipFile(file) as archive:
            return _rebuilt(_members(archive))
    except _Refused as refusal:
        raise ModelLoadError(
            f"refused: {refusal}",
            where=str(path),
            hint="export it again: it may hold only PyTorch's operators",
        ) from refusal
    # What the readers of zip archives raise on a damaged one, and what a value of another shape than expected ends in.
    except (
        *(OSError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile),
        *(ValueError, KeyError, TypeError, AttributeError, IndexError),
    ) as error:
        raise ModelLoadError(
            f"is no whole program of torch.export ({error})", where=str(path), hint="export it again"
        ) from error


class _Refused(Exception):
    """Something in a program that could run code."""


def _members(archive: zipfile.ZipFile) -> dict[str, bytes]:
    """The members without their common folder. They are not compressed, so none is larger than the file."""
    members: dict[str, bytes] = {}
    for info in archive.infolist():
        _, _, name = info.filename.partition("/")
        if info.compress_type != zipfile.ZIP_STORED or name in members:
            raise _Refused(f"its member {info.filename!r:.80} is compressed or there twice")
        members[name] = archive.read(info)
    return members


def _rebuilt(members: dict[str, bytes]) -> io.BytesIO:
    if _MODEL not in members:
        raise _Refused(f"it has no {_MODEL}")
    kept = {name: members.pop(name) for name in _MARKS if name in members}
    for name in _LEFT_OUT:
        members.pop(name, None)
    kept[_SAMPLE_INPUTS] = b""
    kept[_MODEL] = _dumped(_checked_model(_json(_MODEL, members.pop(_MODEL))))
    for table, file_name in _TABLES.items():
        value = _json(table, members.pop(table, b'{"config": {}}'))
        for payload in _checked_table(value, file_name):
            name = f"{table.rpartition('/')[0]}/{payload}"
            if name in members:
                kept[name] = members.pop(name)
            elif name not in kept:
                raise _Refused(f"{payload!r:.80} is not in it")
        kept[table] = _dumped(value)
    if members:
        raise _Refused(f"its member {next(iter(members))!r:.80} is none of a program's")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, member in kept.items():
            archive.writestr(f"archive/{name}", member)
    content.seek(0)
    return content


def _json(name: str, content: bytes) -> Any:
    if len(content) > _MOST_BYTES_OF_JSON:
        raise _Refused(f"its {name} is larger than {_MOST_BYTES_OF_JSON >> 20} MB")
    return parse_json(content, name, error=ModelLoadError, allow_nan=True)


def _dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


def _checked_table(table: Any, file_name: re.Pattern[str]) -> Iterable[str]:
    """Names of the files that hold the tensors of a table, none of which is a pickle."""
    for payload in table["config"].values():
        name = payload["path_name"]
        if payload["use_pickle"] is not False or not isinstance(name, str) or not file_name.fullmatch(name):
            raise _Refused(f"a tensor is not plain numbers ({name!r:.80})")
        _check(payload)
        yield name


def _checked_model(model: Any) -> Any:
    """The program without the remarks on where its nodes come from."""
    for guard in model.get("guards_code", []):
        _verdict(check_guard(guard))
    _check({key: value for key, value in model.items() if key != "guards_code"})
    for node in model["graph_module"]["graph"]["nodes"]:
        if not _OPERATORS.fullmatch(node["target"]):
            raise _Refused(f"it calls {node['target']!r:.80}")
    return model


def _check(value: Any, key: str = "") -> None:
    if isinstance(value, dict):
        if "metadata" in value:
            value["metadata"] = {}
        for name, item in value.items():
            if name in _REFUSED_KEYS or (name == "custom_obj_values" and item):
                raise _Refused("it holds an object that is no tensor")
            _check_text(name, "")
            _check(item, name)
    elif isinstance(value, list):
        for item in value:
            _check(item, key)
    elif isinstance(value, str):
        _check_text(value, key)


def _check_text(text: str, key: str) -> None:
    if key == "expr_str":
        _verdict(check_expression(text))
    elif key in ("in_spec", "out_spec"):
        _check_containers(parse_json(text.encode(), key, error=ModelLoadError)[1])
    elif not _PLAIN_TEXT.fullmatch(text):
        raise _Refused(f"{text!r:.80} is no name")


def _check_containers(spec: Any, depth: int = 0) -> None:
    """How inputs and outputs are nested: in tuples and lists, keyword arguments empty."""
    known = _CONTAINERS.get(spec["type"], ())
    if spec["context"] not in known or depth > _DEEPEST_CONTAINER:
        raise _Refused(f"its inputs or outputs are in a {spec['type']!r:.80}")
    for child in spec["children_spec"]:
        _check_containers(child, depth + 1)


def _verdict(problem: str | None) -> None:
    if problem is not None:
        raise _Refused(problem)

"""Evaluates a Python file that only assigns values, without executing it.

AWML's deploy configs are Python, but data: names set to dictionaries, lists, numbers and strings. They are read from
the syntax tree, so that a config from elsewhere can't run code. Understood: assignments, ``dict(...)``, ``{...}``,
lists, tuples, ``**`` and ``*`` unpacking, arithmetic such as ``2 << 30``, earlier names, subscripts, f-strings,
``str(...)``, ``strip`` and similar methods of strings, ``os.path.join``, and ``_base_`` with files of the same kind,
whose values are ``_base_.name``. Lists grow by ``+=`` and dictionaries by ``update(...)``, in place, as Python does it.
Anything else is an error that names the line.

No library does this: ``ast.literal_eval`` knows neither names nor ``dict()``, simpleeval evaluates one expression
without assignments, and mmengine executes the file. None gives the line of each key, which the messages need.
"""

from __future__ import annotations

import ast
import difflib
import operator
import os
import posixpath
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

from shared.config.walk import KeyPath
from shared.errors import ConfigError
from shared.regular_files import read_bytes

_MAX_BITS = 128
# Larger and deeper than any config, and read in well under a second. Names count wherever they are used.
_MAX_LENGTH = 100_000
_MAX_DEPTH = 50
# Values looked at to measure others, over the whole file.
_MAX_MEASURED = 5 * _MAX_LENGTH
_LONGEST_QUOTE = 60

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitOr: operator.or_,
    ast.BitAnd: operator.and_,
}

_TEXT_METHODS = ("strip", "lstrip", "rstrip", "removeprefix", "removesuffix", "lower", "upper")


# What may be imported, for os.path.join.
_PATH_MODULES = ("os", "os.path")


def read_texts(path: Path) -> list[str]:
    """The strings in a Python file, unevaluated, docstrings and bases left out.

    Raises:
        ConfigError: missing, or not Python.
    """
    return [
        node.value
        for statement in _parse(path).body
        if not isinstance(statement, ast.Expr)
        for node in ast.walk(statement)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


class LinedDict(dict[Any, Any]):
    """A dictionary that knows the file and line of each key."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[Any, tuple[Path, int]] = {}

    def put(self, key: Any, value: Any, place: tuple[Path, int]) -> None:
        """Set ``key`` and where it was set."""
        self[key] = value
        self.lines[key] = place

    def absorb(self, other: dict[Any, Any], place: tuple[Path, int]) -> None:
        """Take over all keys of ``other``; those without a line of their own get ``place``."""
        lines = other.lines if isinstance(other, LinedDict) else {}
        for key, value in other.items():
            self.put(key, value, lines.get(key, place))


def read_python_literals(path: Path) -> LinedDict:
    """The names that a Python file assigns, helpers (names that begin with ``_``) left out.

    Raises:
        ConfigError: missing, not Python, or something in it that is more than a value.
    """
    return read_with_bases(path)[0]


def read_with_bases(path: Path) -> tuple[LinedDict, dict[str, LinedDict]]:
    """What `read_python_literals` gives, and what it gives for each file that this one names as its ``_base_``.

    Raises:
        ConfigError: as `read_python_literals`.
    """
    file = _File(path, (os.path.realpath(path),), {})
    names = file.run(_parse(path))
    return _public(names), {name: _public(base) for name, base in file.bases_by_name.items()}


def assigns(path: Path, names: Collection[str]) -> bool:
    """Whether a Python file itself, and none of its bases, gives one of these names a value.

    Raises:
        ConfigError: missing, or not Python.
    """
    targets = [target for node in _parse(path).body if isinstance(node, ast.Assign) for target in node.targets]
    return any(isinstance(target, ast.Name) and target.id in names for target in targets)


def _public(names: LinedDict) -> LinedDict:
    public = LinedDict()
    for name, value in names.items():
        if not name.startswith("_"):
            public.put(name, value, names.lines[name])
    return public


def place_of(value: Any, keys: KeyPath) -> tuple[Path, int] | None:
    """File and line of a key path, or of the nearest one above it."""
    place = None
    for key in keys:
        if isinstance(value, LinedDict) and key in value.lines:
            place = value.lines[key]
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            break
    return place


def _evaluate_file(path: Path, above: tuple[str, ...], evaluated: dict[str, LinedDict]) -> LinedDict:
    """The names of a file; ``above`` has those that name it as their base, ``evaluated`` those that are done."""
    key = os.path.realpath(path)
    if key in above:
        raise ConfigError("is its own _base_", where=str(path), hint="remove _base_ from one of the files")
    if key not in evaluated:
        evaluated[key] = _File(path, (*above, key), evaluated).run(_parse(path))
    return evaluated[key]


def _parse(path: Path) -> ast.Module:
    if not os.path.lexists(path):
        raise ConfigError("no such config file", where=str(path))
    content = read_bytes(path)
    try:
        return ast.parse(content, filename=str(path))
    except SyntaxError as error:
        raise ConfigError(f"is not valid Python: {error.msg}", where=f"{path}:{error.lineno or 1}") from error
    except (RecursionError, MemoryError) as error:  # the parser's own stack is full
        raise ConfigError("is nested too deeply", where=str(path)) from error
    except ValueError as error:
        raise ConfigError(f"is not valid Python: {error}", where=str(path)) from error


class _Extent(NamedTuple):
    """How large a value is when all that it refers to is written out."""

    values: int
    depth: int


class _File:
    """The evaluation of one file: its path for messages, and the names set so far."""

    def __init__(self, path: Path, above: tuple[str, ...], evaluated: dict[str, LinedDict]) -> None:
        self.path = path
        self.above = above
        self.evaluated = evaluated
        self.names = LinedDict()
        self.bases_by_name: dict[str, LinedDict] = {}
        self.bases = LinedDict()
        self.modules: dict[str, str] = {}
        # By id; the containers are kept, so that no other one gets it.
        self.extents: dict[int, tuple[_Extent, Any]] = {}
        self.measured = 0

    def run(self, tree: ast.Module) -> LinedDict:
        """The names that the file sets.

        Raises:
            ConfigError: something in it is more than a plain value, or too large.
        """
        try:
            names = self.statements(tree)
        except RecursionError as error:
            raise ConfigError("is nested too deeply", where=str(self.path)) from error
        if self.extent(names).values > _MAX_LENGTH:
            raise ConfigError(f"has more than {_MAX_LENGTH} values", where=str(self.path))
        return names

    def statements(self, tree: ast.Module) -> LinedDict:
        for statement in tree.body:
            match statement:
                case ast.Expr(value=ast.Constant()):
                    pass  # a docstring
                case ast.Import() | ast.ImportFrom() if self.imports(statement):
                    pass
                case ast.Assign(targets=targets, value=value):
                    self.assign(targets, value)
                case ast.AnnAssign(target=target, value=ast.expr() as value):
                    self.assign([target], value)
                case ast.AugAssign(target=target, op=ast.Add(), value=value):
                    self.extend(target, value)
                case ast.Expr(value=ast.Call(func=ast.Attribute(value=owner, attr="update")) as call):
                    self.update(owner, call)
                case _:
                    raise self.refusal(statement, "only assignments of values are read from a Python config")
        return _merge(self.bases, self.names)

    def assign(self, targets: list[ast.expr], value: ast.expr) -> None:
        result = self.value(value)
        for target in targets:
            if not isinstance(target, ast.Name):
                raise self.refusal(target, "only plain names are assigned in a Python config")
            if target.id == "_base_":
                # Each file changes a copy: another one may have the same base.
                self.bases = _copied(self.base(result, target))
            else:
                self.names.put(target.id, result, (self.path, target.lineno))

    def extend(self, target: ast.expr, value: ast.expr) -> None:
        """``target += value`` of lists."""
        changed, added = self.value(target), self.value(value)
        if not isinstance(changed, list) or not isinstance(added, (list, tuple)):
            raise self.refusal(target, "only a list grows by +=, by another list")
        changed.extend(added)
        self.measure_anew(target, changed)

    def update(self, owner: ast.expr, call: ast.Call) -> None:
        """``owner.update(...)`` of a dictionary."""
        changed, added = self.value(owner), self.dict_call(call)
        if not isinstance(changed, LinedDict):
            raise self.refusal(owner, "only a dictionary is updated")
        changed.absorb(added, (self.path, call.lineno))
        self.measure_anew(owner, changed)

    def measure_anew(self, node: ast.expr, changed: Any) -> None:
        """Check a value that was changed, and forget the extents of all that may hold it."""
        self.extents.clear()
        self.check_extent(node, changed)

    def imports(self, statement: ast.Import | ast.ImportFrom) -> bool:
        """Note what the modules with ``join`` are called; False when the statement imports anything else."""
        prefix = f"{statement.module}." if isinstance(statement, ast.ImportFrom) else ""
        modules = {name.asname or name.name: f"{prefix}{name.name}" for name in statement.names}
        if not set(modules.values()) <= set(_PATH_MODULES):
            return False
        self.modules |= modules
        return True

    def base(self, names: Any, node: ast.AST) -> LinedDict:
        merged = LinedDict()
        for name in names if isinstance(names, (list, tuple)) else [names]:
            if not isinstance(name, str) or "\0" in name:
                raise self.refusal(node, "_base_ should be a file name or a list of them")
            self.bases_by_name[name] = _evaluate_file(self.path.parent / name, self.above, self.evaluated)
            merged = _merge(merged, self.bases_by_name[name])
        return merged

    def refusal(self, node: ast.AST, reason: str) -> ConfigError:
        """The error for something that is more than a plain value."""
        text = " ".join(ast.unparse(node).split())
        quote = text if len(text) <= _LONGEST_QUOTE else f"{text[: _LONGEST_QUOTE - 3]}..."
        return ConfigError(
            f"'{quote}': {reason}",
            where=f"{self.path}:{getattr(node, 'lineno', 1)}",
            hint="the file is read without being executed; write the value itself, or a YAML config",
        )

    def value(self, node: ast.expr) -> Any:
        """The value of an expression."""
        evaluate = _EVALUATE.get(type(node))
        if evaluate is None:
            raise self.refusal(node, f"{type(node).__name__} is not a plain value")
        value = evaluate(self, node)
        self.check_extent(node, value)
        return value

    def check_extent(self, node: ast.expr, value: Any) -> None:
        extent = self.extent(value)
        if extent.values > _MAX_LENGTH or extent.depth > _MAX_DEPTH:
            raise self.refusal(node, f"has more than {_MAX_LENGTH} values, or nests more than {_MAX_DEPTH} levels")
        if self.measured > _MAX_MEASURED:
            raise self.refusal(node, f"more than {_MAX_MEASURED} values were computed before it")

    def extent(self, value: Any) -> _Extent:
        """How large a value is; what it is made of has been asked for before."""
        if isinstance(value, str):
            return _Extent(1 + len(value) // 100, 0)
        if not isinstance(value, (dict, list, tuple)):
            return _Extent(1, 0)
        if id(value) not in self.extents:
            self.measured += len(value)
            inner = [self.extent(item) for item in (value.values() if isinstance(value, dict) else value)]
            depth = 1 + max((extent.depth for extent in inner), default=0)
            self.extents[id(value)] = _Extent(1 + sum(extent.values for extent in inner), depth), value
        return self.extents[id(value)][0]

    def constant(self, node: ast.Constant) -> Any:
        if node.value is None or isinstance(node.value, (bool, int, float, str)):
            return node.value
        raise self.refusal(node, f"{type(node.value).__name__} is not understood here")

    def name(self, node: ast.Name) -> Any:
        if node.id not in self.names:
            close = difflib.get_close_matches(node.id, list(self.names), n=1)
            raise self.refusal(node, f"no such name above{f'; did you mean {close[0]}?' if close else ''}")
        return self.names[node.id]

    def attribute(self, node: ast.Attribute) -> Any:
        """A name of the bases: ``_base_.name``, and what mmengine lets one reach behind it, ``_base_.name.key``."""
        match node.value:
            case ast.Name(id="_base_"):
                owner: Any = self.bases
            case ast.Attribute():
                owner = self.value(node.value)
            case _:
                raise self.refusal(node, "Attribute is not a plain value, but of _base_")
        if not isinstance(owner, dict) or node.attr not in owner:
            raise self.refusal(node, f"there is no {node.attr} in its _base_")
        return owner[node.attr]

    def unary(self, node: ast.UnaryOp) -> Any:
        if isinstance(node.op, ast.Not):
            return not self.value(node.operand)
        number = self.value(node.operand)
        if isinstance(number, bool) or not isinstance(number, (int, float)) or isinstance(node.op, ast.Invert):
            raise self.refusal(node, "only a number has a sign")
        return -number if isinstance(node.op, ast.USub) else number

    def dictionary(self, node: ast.Dict) -> LinedDict:
        result = LinedDict()
        written: dict[Any, int] = {}
        for key_node, value_node in zip(node.keys, node.values, strict=True):
            if key_node is None:
                result.absorb(self.mapping(value_node), (self.path, value_node.lineno))
                continue
            key = self.value(key_node)
            if not isinstance(key, (str, int)):
                raise self.refusal(key_node, "a key should be a string or a whole number")
            if key in written:
                raise self.refusal(key_node, f"duplicate key (first on line {written[key]})")
            written[key] = key_node.lineno
            result.put(key, self.value(value_node), (self.path, key_node.lineno))
        return result

    def mapping(self, node: ast.expr) -> dict[Any, Any]:
        value = self.value(node)
        if not isinstance(value, dict):
            raise self.refusal(node, "should be a dictionary")
        return value

    def elements(self, nodes: list[ast.expr]) -> list[Any]:
        result: list[Any] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                inner = self.value(node.value)
                if not isinstance(inner, (list, tuple)):
                    raise self.refusal(node, "should be a list")
                result.extend(inner)
            else:
                result.append(self.value(node))
        return result

    def call(self, node: ast.Call) -> Any:
        match node.func:
            case ast.Name(id="dict"):
                return self.dict_call(node)
            case ast.Name(id="list" | "tuple" as kind) if len(node.args) <= 1 and not node.keywords:
                inner = self.value(node.args[0]) if node.args else ()
                if not isinstance(inner, (list, tuple)):
                    raise self.refusal(node, "should be given a list")
                return list(inner) if kind == "list" else tuple(inner)
            case ast.Name(id="str") if len(node.args) == 1 and not node.keywords:
                inner = self.value(node.args[0])
                if isinstance(inner, (str, int, float)):
                    return str(inner)
            case ast.Attribute(attr="join", value=module) if not node.keywords and self.is_path_module(module):
                return self.text_call(node, posixpath.join, node.args)
            case ast.Attribute(value=owner, attr=method) if method in _TEXT_METHODS and not node.keywords:
                return self.text_call(node, getattr(str, method), [owner, *node.args])
        raise self.refusal(
            node, "a Python config may call only dict, list, tuple, str, os.path.join, and strip of a string"
        )

    def dict_call(self, node: ast.Call) -> LinedDict:
        result = LinedDict()
        for argument in node.args:
            result.absorb(self.mapping(argument), (self.path, argument.lineno))
        if len(node.args) > 1:
            raise self.refusal(node, "dict takes one dictionary and keywords")
        for keyword in node.keywords:
            if keyword.arg is None:
                result.absorb(self.mapping(keyword.value), (self.path, keyword.value.lineno))
            else:
                result.put(keyword.arg, self.value(keyword.value), (self.path, keyword.lineno))
        return result

    def text_call(self, node: ast.Call, function: Callable[..., str], nodes: list[ast.expr]) -> str:
        """What a function of strings gives."""
        arguments = [self.value(argument) for argument in nodes]
        if not all(isinstance(argument, str) for argument in arguments):
            raise self.refusal(node, "takes strings")
        try:
            return function(*arguments)
        except TypeError as error:  # too many arguments, or too few
            raise self.refusal(node, str(error)) from error

    def is_path_module(self, node: ast.expr) -> bool:
        """Whether an expression names the module ``os.path``."""
        match node:
            case ast.Name(id=name):
                return self.modules.get(name, "") == "os.path"
            case ast.Attribute(value=ast.Name(id=name), attr="path"):
                return self.modules.get(name) == "os" or f"{name}.path" in self.modules
        return False

    def binary(self, node: ast.BinOp) -> Any:
        left, right = self.value(node.left), self.value(node.right)
        compute = _BINARY.get(type(node.op))
        if compute is None:
            raise self.refusal(node, f"{type(node.op).__name__} is not understood here")
        if isinstance(node.op, ast.BitOr) and isinstance(left, dict) and isinstance(right, dict):
            merged = LinedDict()
            for side in (left, right):
                merged.absorb(side, (self.path, node.lineno))
            return merged
        if isinstance(node.op, ast.Add) and type(left) is type(right) and isinstance(left, (str, list, tuple)):
            if len(left) + len(right) > _MAX_LENGTH:
                raise self.refusal(node, "is too long")
            return left + right
        for side in (left, right):
            if isinstance(side, bool) or not isinstance(side, (int, float)):
                raise self.refusal(node, f"can't compute with {type(side).__name__}")
        if isinstance(node.op, (ast.LShift, ast.Pow)) and (
            abs(right) > _MAX_BITS or (isinstance(node.op, ast.Pow) and abs(left) > 2**_MAX_BITS)
        ):
            raise self.refusal(node, "is too large a number")
        try:
            result = compute(left, right)
        except (ArithmeticError, ValueError, TypeError) as error:
            raise self.refusal(node, str(error)) from error
        if isinstance(result, complex) or (isinstance(result, int) and result.bit_length() > _MAX_BITS):
            raise self.refusal(node, "is too large a number")
        return result

    def subscript(self, node: ast.Subscript) -> Any:
        container, key = self.value(node.value), self.value(node.slice)
        if not isinstance(container, (dict, list, tuple)):
            raise self.refusal(node, "only dictionaries, lists and tuples have items")
        try:
            return container[key]
        except (KeyError, IndexError, TypeError) as error:
            there = ", ".join(map(repr, container)) if isinstance(container, dict) else f"{len(container)} entries"
            raise self.refusal(node, f"there is no {key!r}; there are {there}") from error

    def text(self, node: ast.JoinedStr) -> str:
        parts = []
        for part in node.values:
            plain = isinstance(part, ast.FormattedValue) and part.conversion == -1 and part.format_spec is None
            value = self.value(part.value if isinstance(part, ast.FormattedValue) else part)
            if not isinstance(value, (str, int, float)) or not (plain or isinstance(part, ast.Constant)):
                raise self.refusal(node, "an f-string may hold strings and numbers, without a format")
            parts.append(str(value))
        return "".join(parts)


_EVALUATE: dict[type[ast.expr], Callable[[_File, Any], Any]] = {
    ast.Attribute: _File.attribute,
    ast.BinOp: _File.binary,
    ast.Call: _File.call,
    ast.Constant: _File.constant,
    ast.Dict: _File.dictionary,
    ast.JoinedStr: _File.text,
    ast.List: lambda file, node: file.elements(node.elts),
    ast.Name: _File.name,
    ast.Subscript: _File.subscript,
    ast.Tuple: lambda file, node: tuple(file.elements(node.elts)),
    ast.UnaryOp: _File.unary,
}


def _copied(value: Any) -> Any:
    """A value that can be changed without changing the other one."""
    if isinstance(value, LinedDict):
        result = LinedDict()
        for key, item in value.items():
            result.put(key, _copied(item), value.lines[key])
        return result
    return type(value)(map(_copied, value)) if isinstance(value, (list, tuple)) else value


def _merge(base: dict[Any, Any], child: dict[Any, Any]) -> LinedDict:
    """mmengine's rule for ``_base_``: dictionaries merge key by key, unless the child's has ``_delete_=True``."""
    result = LinedDict()
    result.absorb(base, (Path(), 0))
    lines = child.lines if isinstance(child, LinedDict) else {}
    for key, value in child.items():
        merged = value
        if isinstance(value, dict):
            old = result.get(key)
            keeps = isinstance(old, dict) and not value.get("_delete_", False)
            merged = _merge(old if keeps and old is not None else {}, value)
        if key != "_delete_":
            result.put(key, merged, lines.get(key, (Path(), 0)))
    return result

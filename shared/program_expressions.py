"""Sizes in programs of ``torch.export``: PyTorch evaluates their text as Python, so only arithmetic may be in it."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

_LONGEST = 20_000
_LARGEST = 2**63

_SYMBOL = re.compile(r"[a-z]{1,3}\d+")
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_DECIMAL = re.compile(r"-?\d{1,20}(\.\d{1,20})?(e[+-]?\d{1,3})?")
# Of SymPy, and of torch.utils._sympy.functions. What makes numbers of any size out of small ones is not among them.
_FUNCTIONS = {
    *("Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Max", "Min", "Mod", "PythonMod", "Abs"),
    *("Eq", "Ne", "Lt", "Le", "Gt", "Ge", "Equality", "Unequality", "StrictLessThan", "StrictGreaterThan"),
    *("LessThan", "GreaterThan", "And", "Or", "Not", "Where", "Identity", "FloorDiv", "ModularIndexing", "CleanDiv"),
    *("CeilDiv", "CeilToInt", "FloorToInt", "TruncToInt", "TruncToFloat", "RoundToInt", "RoundDecimal", "ToFloat"),
    *("FloatTrueDiv", "IntTrueDiv", "IsNonOverlappingAndDenseIndicator"),
}
_ASSUMPTIONS = {"positive", "nonnegative", "integer", "real", "precision"}
_ARITHMETIC = (
    *(ast.Expression, ast.Load, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Pow),
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.USub, ast.UAdd, ast.Not, ast.And, ast.Or),
    *(ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE),
)
# Of Pow(x, Integer(2)) and x**2; a power has no base that is one.
_LARGEST_EXPONENT = 8
# In guards: Python's own, and of modules.
_FUNCTIONS_IN_GUARDS = {"max", "min", "abs", "round"}
_OF_MODULES = {"math": ("floor", "ceil", "trunc"), "torch": ("sym_float",)}
_OF_INPUTS = ("size", "stride", "storage_offset")


def check_expression(text: str) -> str | None:
    """What is wrong with the text of a size, for example ``Add(Symbol('s0', integer=True), Integer(-1))``; or None."""
    return _problem(text, _fits_in_expression)


def check_guard(text: str) -> str | None:
    """What is wrong with a condition on inputs, for example ``L['x'].size()[0] != 1``; or None."""
    return _problem(text, _fits_in_guard)


def _problem(text: object, fits: Callable[[ast.AST], bool]) -> str | None:
    if not isinstance(text, str) or len(text) > _LONGEST:
        return "a size is no text, or very long"
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return f"{text!r:.80} is no size"
    return None if all(fits(node) for node in ast.walk(tree)) else f"{text!r:.80} is more than arithmetic on sizes"


def _fits_in_expression(node: ast.AST) -> bool:
    match node:
        case ast.Constant(value=str(text)):
            fits = any(pattern.fullmatch(text) for pattern in (_SYMBOL, _DECIMAL))
        case ast.Call(func=ast.Name(id="Pow"), args=[base, ast.Call(args=[exponent])]):
            fits = _is_small_power(base, exponent)
        case ast.Call(func=ast.Name(id=name)):
            fits = name in _FUNCTIONS
        case ast.keyword(arg=name):
            fits = name in _ASSUMPTIONS
        case ast.Name(id=name):
            fits = name in _FUNCTIONS or name == "Pow" or _SYMBOL.fullmatch(name) is not None
        case _:
            fits = _is_arithmetic(node)
    return fits


def _fits_in_guard(node: ast.AST) -> bool:
    match node:
        case ast.Constant(value=str(text)):
            fits = _NAME.fullmatch(text) is not None
        case ast.Call(func=ast.Attribute(attr=name), args=[]):
            fits = name in _OF_INPUTS
        case ast.Call(func=ast.Attribute(value=ast.Name(id=module), attr=name)):
            fits = name in _OF_MODULES.get(module, ())
        case ast.Call(func=ast.Name(id=name)):
            fits = name in _FUNCTIONS_IN_GUARDS
        case ast.Attribute(attr=name):
            fits = name in _OF_INPUTS or any(name in names for names in _OF_MODULES.values())
        case ast.Subscript(slice=index):
            fits = isinstance(index, ast.Constant)
        case ast.Name(id=name):
            fits = name == "L" or name in _FUNCTIONS_IN_GUARDS or name in _OF_MODULES
        case _:
            fits = _is_arithmetic(node)
    return fits


def _is_arithmetic(node: ast.AST) -> bool:
    match node:
        case ast.BinOp(left=base, op=ast.Pow(), right=exponent):
            return _is_small_power(base, exponent)
        case ast.Constant(value=bool() | float()):
            return True
        case ast.Constant(value=int(number)):
            return abs(number) < _LARGEST
    return isinstance(node, _ARITHMETIC)


def _is_small_power(base: ast.AST, exponent: ast.AST) -> bool:
    nested = any(
        isinstance(node, ast.Pow) or (isinstance(node, ast.Name) and node.id == "Pow") for node in ast.walk(base)
    )
    match exponent:
        case ast.Constant(value=int(number)):
            return not nested and number <= _LARGEST_EXPONENT
    return False

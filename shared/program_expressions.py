"""Sizes in programs of ``torch.export``: PyTorch evaluates their text as Python, so only arithmetic may be in it."""

from __future__ import annotations

import ast
import re

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
    *(ast.Expression, ast.Load, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare),
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.USub, ast.UAdd, ast.Not, ast.And, ast.Or),
    *(ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE),
)
# Of Pow(x, Integer(2)); a power has no base that is one.
_LARGEST_EXPONENT = 8
_OF_INPUTS = ("size", "stride", "storage_offset")


def check_expression(text: str) -> str | None:
    """What is wrong with the text of a size, for example ``Add(Symbol('s0', integer=True), Integer(-1))``; or None."""
    return _problem(text, inputs=False)


def check_guard(text: str) -> str | None:
    """What is wrong with a condition on inputs, for example ``L['x'].size()[0] != 1``; or None."""
    return _problem(text, inputs=True)


def _problem(text: object, *, inputs: bool) -> str | None:
    if not isinstance(text, str) or len(text) > _LONGEST:
        return "a size is no text, or very long"
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return f"{text!r:.80} is no size"
    fits = all(_fits(node, inputs=inputs) for node in ast.walk(tree))
    return None if fits else f"{text!r:.80} is more than arithmetic on sizes"


def _fits(node: ast.AST, *, inputs: bool) -> bool:
    match node:
        case ast.Constant(value=value):
            fits = _is_harmless(value, inputs=inputs)
        case ast.Call():
            fits = _is_known_call(node, inputs=inputs)
        case ast.keyword(arg=name):
            fits = name in _ASSUMPTIONS
        case ast.Name(id=name):
            fits = name in _FUNCTIONS or name == "Pow" or bool(_SYMBOL.fullmatch(name)) or (inputs and name == "L")
        case ast.Attribute(attr=name):
            fits = inputs and name in _OF_INPUTS
        case ast.Subscript(slice=index):
            fits = inputs and isinstance(index, ast.Constant)
        case _:
            fits = isinstance(node, _ARITHMETIC)
    return fits


def _is_harmless(value: object, *, inputs: bool) -> bool:
    if isinstance(value, str):
        wanted = (_NAME,) if inputs else (_SYMBOL, _DECIMAL)
        return any(pattern.fullmatch(value) for pattern in wanted)
    return isinstance(value, (bool, float)) or (isinstance(value, int) and abs(value) < _LARGEST)


def _is_known_call(call: ast.Call, *, inputs: bool) -> bool:
    if isinstance(call.func, ast.Attribute):
        return inputs and not call.args and not call.keywords
    if not isinstance(call.func, ast.Name):
        return False
    if call.func.id == "Pow":
        return _is_small_power(call)
    return call.func.id in _FUNCTIONS and not any(isinstance(argument, ast.Starred) for argument in call.args)


def _is_small_power(call: ast.Call) -> bool:
    match call.args:
        case [base, ast.Call(func=ast.Name(id="Integer"), args=[exponent], keywords=[])]:
            nested = any(isinstance(node, ast.Name) and node.id == "Pow" for node in ast.walk(base))
            value = exponent.value if isinstance(exponent, ast.Constant) else None
            return not nested and not call.keywords and isinstance(value, int) and 0 <= value <= _LARGEST_EXPONENT
    return False

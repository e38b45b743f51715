"""Renders docs/api/ from the docstrings of what `public_api` names.

griffe reads the sources without importing them, so that the exporter's pages need no PyTorch.
"""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import griffe
from public_api import PAGES, Page

_ROOT = Path(__file__).parents[1]
_TEMPLATE = Path(__file__).parent / "templates" / "api.md"
_PARSER = griffe.Parser.google
# Returns and Yields hold one thing each, described in words.
_PARSER_OPTIONS: griffe.GoogleOptions = {"returns_multiple_items": False, "warnings": False}
_WIDTH = 100
_SHORT_VALUE = 40


def api_pages() -> dict[str, str]:
    """Content of every page of docs/api/, by file name in docs/."""
    pages = {f"api/{name}.md": _page(page) for name, page in PAGES.items()}
    index = _TEMPLATE.read_text(encoding="utf-8").replace("{{public}}", "\n".join(_names()))
    return {"api/index.md": index, **pages}


def public_object(module: str, name: str) -> griffe.Object:
    """What is called ``name`` in ``module``, wherever it is defined.

    Raises:
        KeyError: there is no such name.
    """
    found = _loader().modules_collection[f"{module}.{name}"]
    return found.final_target if isinstance(found, griffe.Alias) else found


@cache
def _loader() -> griffe.GriffeLoader:
    loader = griffe.GriffeLoader(
        search_paths=[_ROOT], docstring_parser=_PARSER, docstring_options=_PARSER_OPTIONS, allow_inspection=False
    )
    for package in sorted({module.split(".")[0] for page in PAGES.values() for module in page.modules}):
        loader.load(package)
    return loader


def public_members(owner: griffe.Object) -> Iterator[griffe.Object]:
    """Methods and properties of a class that are its own: what a base declares is described there."""
    inherited = {name for base in owner.mro() for name in base.members} if isinstance(owner, griffe.Class) else set()
    for name, member in owner.members.items():
        if not name.startswith("_") and name not in inherited and (member.is_function or "property" in member.labels):
            assert isinstance(member, griffe.Object)
            yield member


def _names() -> Iterator[str]:
    """Rows of the table of everything that is public."""
    for file, page in PAGES.items():
        for module, names in page.modules.items():
            for name, version in names.items():
                yield f"| [`{module}.{name}`]({file}.md#{_anchor(_heading(module, name))}) | {version} |"


def _heading(module: str, name: str) -> str:
    """A name as it is used: `tasks.find`, `nuscenes.ClassScore`."""
    return f"{module.rsplit('.', 1)[-1]}.{name}"


def _anchor(heading: str) -> str:
    """The anchor that both GitHub and the site give a heading."""
    return re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-")


@cache
def _links() -> Mapping[str, str]:
    """Where every public object is described: page and anchor by its path in the sources."""
    return {
        public_object(module, name).path: f"{file}.md#{_anchor(_heading(module, name))}"
        for file, page in PAGES.items()
        for module, names in page.modules.items()
        for name in names
    }


def _page(page: Page) -> str:
    lines = [
        "<!-- Generated from docs/public_api.py and docstrings by `make docs`. -->",
        "",
        f"# {page.title}",
        "",
        page.introduction,
    ]
    for module, names in page.modules.items():
        lines += [f"## {module}", ""]
        for name, version in names.items():
            lines += _described(public_object(module, name), _heading(module, name), version)
    return "\n".join(lines).rstrip() + "\n"


def _described(found: griffe.Object, heading: str, version: str) -> list[str]:
    lines = [f"### {heading}", "", f"*{_origin(found, version)}*", "", *_code(found), *_docstring(found)]
    lines += _fields(found)
    for member in public_members(found):
        lines += [f"#### {found.name}.{member.name}", "", *_code(member), *_docstring(member)]
    return lines


def _origin(found: griffe.Object, version: str) -> str:
    """Since when it is public, and which public classes it derives from."""
    bases = [str(base).split("[")[0] for base in found.bases] if isinstance(found, griffe.Class) else []
    public = ", ".join(_linked(base, found) for base in bases if _path(base, found) in _links())
    return f"Since {version}{public and f'; derives from {public}'}."


def _code(found: griffe.Object) -> list[str]:
    """The signature, as it stands in the source; nothing for a class that is made without any."""
    if isinstance(found, griffe.Class) and not found.parameters:
        return []
    decorators = [label for label in ("staticmethod", "classmethod", "abstractmethod") if label in found.labels]
    if isinstance(found, griffe.Class):
        text = f"class {_signature(found)}"
    elif isinstance(found, griffe.Function):
        text = f"def {_signature(found)}"
    else:
        assert isinstance(found, griffe.Attribute)
        text = f"{found.name}: {found.annotation}"
    return ["```python", *(f"@{decorator}" for decorator in decorators), text, "```", ""]


def _signature(found: griffe.Class | griffe.Function) -> str:
    """The signature; a long one with a line for each parameter."""
    signature = found.signature().replace("'", '"')
    if len(signature) <= _WIDTH:
        return signature
    opened = signature.index("(")
    depth, start, parts = 0, opened + 1, []
    for position in range(opened, len(signature)):
        character = signature[position]
        depth += (character in "([{") - (character in ")]}")
        if depth == 0 or (depth == 1 and character == ","):
            parts.append(signature[start:position].strip())
            start = position + 1
        if depth == 0:
            break
    inside = "".join(f"    {part},\n" for part in parts)
    return f"{signature[: opened + 1]}\n{inside}{signature[start - 1 :]}"


def _sections(found: griffe.Object) -> list[griffe.DocstringSection]:
    return [] if found.docstring is None else found.docstring.parse(_PARSER, **_PARSER_OPTIONS)


def _docstring(found: griffe.Object) -> list[str]:
    lines = []
    for section in _sections(found):
        kind, value = section.kind.value, section.value
        if kind == "text":
            lines += [_markdown(value, found), ""]
        elif kind in ("parameters", "attributes"):
            items = [(_in_code(item.name), item.description) for item in value]
            lines += _list(kind.capitalize(), items, found)
        elif kind == "raises":
            raised = [(_errors(str(item.annotation), found), item.description) for item in value]
            lines += _list("Raises", raised, found)
        elif kind in ("returns", "yields"):
            lines += [f"**{kind.capitalize()}:** {_markdown(item.description, found)}" for item in value] + [""]
        else:
            raise ValueError(f"{found.path}: its docstring has a section that the pages can't show: {kind}")
    return lines


def _list(title: str, items: Iterable[tuple[str, str]], found: griffe.Object) -> list[str]:
    texts = [f"- {name}: {_markdown(text, found)}".replace("\n", "\n  ") for name, text in items]
    return [f"**{title}:**", "", *texts, ""]


def _in_code(names: str) -> str:
    """`a, b`: parameters that are described together."""
    return ", ".join(f"`{name}`" for name in names.split(", "))


def _errors(names: str, found: griffe.Object) -> str:
    """`A, B`: errors that are raised for one reason, which griffe takes for a tuple."""
    return ", ".join(_linked(name, found) for name in names.strip("()").split(", "))


def _markdown(text: str, found: griffe.Object) -> str:
    """Text of a docstring: its code in Markdown's form, names of what is public as links."""
    text = re.sub(r"``(.+?)``", r"`\1`", text)
    text = re.sub(r"::\n", ":\n", text)
    return re.sub(r"(?<![\[`])`([\w.]+)`(?!`)", lambda match: _linked(match[1], found), text)


def _linked(name: str, found: griffe.Object) -> str:
    path = _path(name, found)
    link = _links().get(path)
    return f"`{name}`" if link is None or path == found.path else f"[`{name}`]({link})"


def _path(name: str, found: griffe.Object) -> str:
    """The path in the sources of what a docstring of ``found`` calls ``name``; errors are called so everywhere."""
    for candidate in (name, f"shared.errors.{name}"):
        if candidate in _links():
            return candidate
    with contextlib.suppress(griffe.NameResolutionError, griffe.AliasResolutionError, KeyError):
        target = _loader().modules_collection[found.resolve(name)]
        return target.final_target.path if isinstance(target, griffe.Alias) else target.path
    return name


def _fields(found: griffe.Object) -> list[str]:
    """Fields of a class that neither its signature nor its docstring has, with their types and descriptions."""
    if not isinstance(found, griffe.Class):
        return []
    known = {parameter.name for parameter in found.parameters} | {"model_config"}
    for section in _sections(found):
        if section.kind is griffe.DocstringSectionKind.attributes:
            known |= {name for item in section.value for name in item.name.split(", ")}
    fields = [
        member
        for name, member in found.members.items()
        if isinstance(member, griffe.Attribute) and not name.startswith("_") and name not in known
        if "property" not in member.labels and (member.annotation is not None or "class-attribute" in member.labels)
    ]
    described = [(f"`{field.name}`", text) for field in fields if (text := _field(field))]
    return _list("Fields", described, found) if described else []


def _field(field: griffe.Attribute) -> str:
    """Type and description of a field; of one without, its value, where that is short."""
    value = "" if field.value is None else str(field.value)
    text = _description(value) or (field.docstring.value if field.docstring else "")
    if field.annotation is not None and not str(field.annotation).startswith("ClassVar"):
        return f"``{field.annotation}``{f'. {text}' if text else ''}"
    return text or (f"``{value}``" if len(value) <= _SHORT_VALUE else "")


def _description(value: str) -> str:
    """The description in ``Field(description=...)`` of pydantic; empty where there is none."""
    if not value.startswith("Field("):
        return ""
    call = ast.parse(value, mode="eval").body
    assert isinstance(call, ast.Call)
    return next((str(ast.literal_eval(word.value)) for word in call.keywords if word.arg == "description"), "")

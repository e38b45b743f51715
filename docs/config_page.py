"""Renders the reference of the deploy config (configuration.md) from its JSON Schema, which comes from the models."""

from __future__ import annotations

import json
from typing import Any

from shared.config.schema import json_schema

_INTRODUCTION = """\
# Deploy config

Generated from `shared/config/` by `make docs`; a test fails when it is stale. The JSON Schema for editors is
[config.schema.json](config.schema.json) (also `exporter config schema`).

One YAML file says what is deployed: the model, the data, and what each of the five tools does with it. The exporter
reads it and records it, with all defaults, in the workspace's manifest; the other tools read it there.

```console
$ exporter config init centerpoint --out my_model.yaml    # a commented file to start from
$ exporter config show --config my_model.yaml             # what it means, defaults filled in
$ exporter export --config my_model.yaml --work work/my_model
```

**Errors.** A key that does not exist, at any depth, a duplicate key, a value of the wrong type or out of range,
and sections that contradict one another are errors. All are reported at once, one line each, with file, line, key,
value and what would be right; the exit code is 2. Types are strict: `"17"` is not `17`, and `1` is not `true`.

**Overrides.** `--set KEY=VALUE` of `exporter export` and `exporter config show` replaces one key, as often as you like;
the value is YAML: `--set export.mode=onnx`, `--set "model.options={rot_y_axis_reference: true}"`,
`--set verification.tolerance=0.01`.

**Paths.** A relative path starts from the folder of the config file; in `--set`, from the current directory.
`data.info_file` in a file starts from `data.root`. `${NAME}` in a path is an environment variable, which must be set,
and `~` is your home folder; nothing else in the config is expanded.

**Devices.** Wherever a device is named: `cpu`, `cuda`, `cuda:1`, or an alias of `devices`. `cuda` is `cuda:0`.

**YAML.** Read as YAML 1.2 does: `1e-3` is a number, `on` and `yes` are text. Dates and whole numbers with leading zeros
(`0061`) are text, too.
"""

_AWML = """\
## Deploy configs of AWML

An AWML `deploy_config.py` can be given wherever a YAML config can, and `exporter config convert deploy_config.py
--out my_model.yaml` writes the YAML. Every form that AWML's framework has had is read, and mmdeploy's, which AWML's
main branch has. The file is never executed: it may hold assignments of plain values, `dict(...)`, arithmetic such as
`2 << 30`, names defined above (helpers begin with `_`), f-strings, `str(...)`, `strip`, `os.path.join`, and `_base_`
with files of the same kind, whose values are `_base_.name`; lists may grow by `+=`, dictionaries by `update(...)`.
Unknown keys are errors at any depth. Defaults are AWML's. Where the base is a training config, as FRNet's is, that is
`model.config`, and what it says stays there.

**Which model.** In this order: `--type` or `--set model.type=...`; a text such as `projects.CenterPoint` in the file;
the folder `projects/<name>/` that it lies in; the names of its components; `task_type`. A config of a project that no
installed model is for (BEVFusion, StreamPETR) is refused in one line that names it. A package that adds a model says in
its `awml.py` which projects it is ([extending.md](extending.md)).

**What becomes of each key** is logged when the file is read, and stands as a comment in the converted YAML: under which
name it is here, or why it is dropped or changed (a warning). All of them:
[migrating.md](migrating.md#keys-of-the-deploy-config).
"""


def configuration_page() -> str:
    """The text of docs/configuration.md."""
    schema = json_schema()
    lines = [_INTRODUCTION, "## Keys", ""]
    lines += ["| section | meaning |", "|---|---|"]
    for name, entry in schema["properties"].items():
        anchor = f"[`{name}`](#{name})" if _definition(entry) is not None and name != "devices" else f"`{name}`"
        lines.append(f"| {anchor} | {_cell(_meaning(name, entry, schema))} |")
    lines.append("")
    seen: dict[str, str] = {}
    for name, entry in schema["properties"].items():
        definition = _definition(entry)
        if definition is not None:
            lines += _section(f"{name}{_inner(entry)}", definition, schema, seen, level=3, heading=name)
    return "\n".join([*lines, _AWML])


def _meaning(name: str, entry: dict[str, Any], schema: dict[str, Any]) -> str:
    required = " **Required.**" if name in schema["required"] else ""
    if (definition := _definition(entry)) is not None:
        # pydantic leaves the field's description out where it is the section's own.
        return f"{entry.get('description', schema['$defs'][definition]['description'])}{required}"
    return f"{entry['description']} {_type_text(entry)}; default {_default_text(entry, False)}.{required}"


def _section(
    path: str, definition: str, schema: dict[str, Any], seen: dict[str, str], *, level: int, heading: str | None = None
) -> list[str]:
    """Heading, description and table of a section, and the sections in it; each kind of section once."""
    if definition in seen:
        return []
    seen[definition] = path
    body = schema["$defs"][definition]
    lines = [f"{'#' * level} {heading or path}", "", body["description"], "", "| key | type | default | meaning |"]
    lines.append("|---|---|---|---|")
    nested = []
    for name, entry in body["properties"].items():
        inner = _definition(entry)
        kind = _type_text(entry)
        if inner is not None:
            inner_path = f"{path}.{name}{_inner(entry)}"
            kind = f"{kind} `{seen.get(inner, inner_path)}`"
            nested.append((inner_path, inner))
        default = _default_text(entry, name in body.get("required", ()))
        meaning = entry.get("description", schema["$defs"][inner]["description"] if inner else "")
        lines.append(f"| `{name}` | {_cell(kind)} | {_cell(default)} | {_cell(meaning)} |")
    lines.append("")
    for inner_path, inner in nested:
        lines += _section(inner_path, inner, schema, seen, level=min(level + 1, 5))
    return lines


def _alternatives(entry: dict[str, Any]) -> list[dict[str, Any]]:
    return [option for option in entry.get("anyOf", [entry]) if option.get("type") != "null"]


def _definition(entry: dict[str, Any]) -> str | None:
    """Name of the section that an entry is, or is a list or mapping of."""
    for option in _alternatives(entry):
        if "$ref" in option:
            return str(option["$ref"]).rsplit("/", 1)[1]
        for holder in ("items", "additionalProperties"):
            if isinstance(option.get(holder), dict) and (found := _definition(option[holder])) is not None:
                return found
    return None


def _inner(entry: dict[str, Any]) -> str:
    """How the path goes on below an entry: ``[]`` for lists, ``.<name>`` for mappings."""
    for option in _alternatives(entry):
        if isinstance(option.get("items"), dict):
            return f"[]{_inner(option['items'])}"
        if isinstance(option.get("additionalProperties"), dict):
            return f".<name>{_inner(option['additionalProperties'])}"
    return ""


_PLAIN_TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}


def _type_text(entry: dict[str, Any]) -> str:
    return " or ".join(dict.fromkeys(_option_text(option) for option in _alternatives(entry)))


def _option_text(option: dict[str, Any]) -> str:
    if "enum" in option or "const" in option:
        return ", ".join(f"`{value}`" for value in option.get("enum", [option.get("const")]))
    if "examples" in option:
        return f"{', '.join(f'`{name}`' for name in option['examples'])} or one that a package adds"
    if "$ref" in option:
        return "section"
    if option.get("type") in ("array", "object"):
        return _container_text(option)
    if option.get("format") == "path":
        return "path"
    return f"{_PLAIN_TYPES.get(str(option.get('type')), 'anything')}{_range_text(option)}"


def _container_text(option: dict[str, Any]) -> str:
    if "prefixItems" in option:
        return f"list of {len(option['prefixItems'])} {_plural(option['prefixItems'][0])}"
    if option["type"] == "array":
        return f"list of {_plural(option['items'])}"
    values = option.get("additionalProperties")
    return f"mapping of {_plural(values)}" if isinstance(values, dict) else "mapping"


def _plural(entry: dict[str, Any]) -> str:
    text = _type_text(entry)
    for word in ("section", "text", "path", "whole number", "number", "list", "mapping"):
        if text == word or text.startswith((f"{word} ", f"{word},")):
            return text.replace(word, f"{word}s", 1)
    return text


def _range_text(option: dict[str, Any]) -> str:
    low, high = option.get("minimum"), option.get("maximum")
    if low is not None and high is not None:
        return f", {low} to {high}"
    if low is not None:
        return f", at least {low}"
    if "exclusiveMinimum" in option:
        return f", more than {option['exclusiveMinimum']}"
    return ""


def _default_text(entry: dict[str, Any], required: bool) -> str:
    if required:
        return "required"
    default = entry.get("default")
    if _definition(entry) is not None or default in (None, "", [], {}):
        return ""
    return f"`{default}`" if isinstance(default, str) else f"`{json.dumps(default)}`"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())

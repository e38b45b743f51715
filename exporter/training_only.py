"""What of a training config's model section only training needs, and the section without it."""

from __future__ import annotations

from typing import Any

# Arguments that say which weights a training starts from, or which it leaves as they are.
_ARGUMENTS = frozenset({"freeze_shared_conv", "freeze_task_heads", "frozen_stages", "pretrained"})


def for_inference(section: Any, registry: Any) -> tuple[Any, list[str]]:
    """A copy of a model section without what only training needs.

    Args:
        section: plain dicts and lists.
        registry: of the framework, in which the types of losses are looked up.

    Returns:
        The copy, and what it lacks: places in the section, with a reason where the place doesn't tell it.
    """
    dropped: list[str] = []
    return _copy(section, registry, "", dropped), dropped


def _copy(section: Any, registry: Any, place: str, dropped: list[str]) -> Any:
    if isinstance(section, (list, tuple)):
        return type(section)(_copy(value, registry, f"{place}.{i}", dropped) for i, value in enumerate(section))
    if not isinstance(section, dict):
        return section
    key = place.rpartition(".")[2]
    if key.startswith("loss") and "type" in section and registry.get(type_name(section["type"])) is None:
        dropped.append(f"{place} ({type_name(section['type'])} is not installed)")
        return {"type": "mmdet.L1Loss"}
    if key == "init_cfg" and section.get("type") == "Pretrained":
        dropped.append(f"{place} (Pretrained)")
        return None
    kept = {}
    for name, value in section.items():
        inside = f"{place}.{name}" if place else str(name)
        if name not in _ARGUMENTS:
            kept[name] = _copy(value, registry, inside, dropped)
        elif not _does_nothing(value):
            dropped.append(inside)
    if "with_cp" in kept:
        kept["with_cp"] = False
    return kept


def _does_nothing(value: Any) -> bool:
    """Whether one of these arguments has no effect in a training either; 0 is the first stage."""
    return value is None or value is False or value == -1


def short_name(value: Any) -> str:
    """The name of a type without its scope: ``mmdet.L1Loss`` is ``L1Loss``."""
    return type_name(value).rpartition(".")[2]


def type_name(value: Any) -> str:
    """The name of a type in a config: a text, or a class where the config imports it."""
    return value if isinstance(value, str) else getattr(value, "__name__", str(value))

"""Every name of TensorRT that our sources use exists in every release that we support, or is guarded by the table."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest

from tests.support import trt_names
from tests.support.trt_bindings import RELEASES, Unavailable, names_of
from trt_builder import compat


@cache
def releases() -> dict[str, dict[str, set[str]]]:
    found = {}
    with ThreadPoolExecutor() as pool:  # the first time, each waits for an index
        asked = {release: pool.submit(names_of, release) for release in RELEASES}
    for release, names in asked.items():
        try:
            found[release.version] = names.result()
        except Unavailable as reason:
            # One Python more than ours is needed for 8.6.0; 8.6.1 stands in for it.
            if release.python is None:
                pytest.skip(f"TensorRT's bindings are not here: {reason}")
    return found


def having(name: str) -> set[str]:
    owner, _, member = name.rpartition(".")
    return {release for release, names in releases().items() if member in names.get(owner, set())}


def test_the_sources_use_no_name_that_a_release_lacks() -> None:
    assert trt_names.problems(trt_names.sources(), compat.OPTIONAL, releases()) == []


def test_the_walk_finds_what_it_must() -> None:
    names = {use.name for use in trt_names.uses(trt_names.sources())}
    assert {
        "BuilderFlag.TF32",
        "IBuilderConfig.set_flag",
        "ICudaEngine.get_tensor_shape",
        "OnnxParser.get_error",
    } <= names
    assert len(names) > 40


def claimed(text: str) -> set[str]:
    """The releases that a claim of the table names, for example ``8.6 to 10.x``."""
    numbers = {
        release: tuple(int(part) for part in release.split(".")[:2]) for release in releases() if "rtx" not in release
    }
    # TensorRT for RTX 1.7 has the API of TensorRT 11.
    numbers |= {release: (11, 1) for release in releases() if "rtx" in release}
    return {release for release, number in numbers.items() if trt_names.is_in(text, number)}


@pytest.mark.parametrize("name", sorted(compat.OPTIONAL))
def test_the_table_says_where_a_name_really_is(name: str) -> None:
    assert having(name) == claimed(compat.OPTIONAL[name])


def test_names_asked_for_are_in_the_table() -> None:
    asked = set().union(*(trt_names.guarded_names(source) for source in trt_names.sources().values()))
    assert asked <= set(compat.OPTIONAL)
    assert len(asked) > 10


@pytest.mark.parametrize("name", ["ILayer.precision", "ParserError.node_name", "ICudaEngine.serialize_with_config"])
def test_a_name_taken_out_of_the_table_is_found(name: str) -> None:
    table = {key: value for key, value in compat.OPTIONAL.items() if key != name}
    assert any(name in problem for problem in trt_names.problems(trt_names.sources(), table, releases()))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('assert has(installed.trt, "ITimingCache.update"), ', "assert True, "),
        ('    assert has(installed.trt, "ILayer.precision"), f"{installed.title} has no layer precisions"\n', ""),
        ('named = has(trt, "ParserError.node_name")', "named = True"),
    ],
)
def test_a_guard_taken_out_of_the_code_is_found(old: str, new: str) -> None:
    files = trt_names.sources()
    assert old in files[trt_names.COMPAT]
    files[trt_names.COMPAT] = files[trt_names.COMPAT].replace(old, new)
    assert trt_names.problems(files, compat.OPTIONAL, releases())


def test_a_bare_use_outside_compat_is_found() -> None:
    files = {"trt_builder/engine.py": "def f(trt, config):\n    config.set_flag(trt.BuilderFlag.FP16)\n"}
    assert trt_names.problems(files, compat.OPTIONAL, releases()) == [
        "trt_builder/engine.py:2: BuilderFlag.FP16 is not in 11.1, 11.4, rtx 1.7; ask compat for it"
    ]

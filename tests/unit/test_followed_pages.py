"""What a page's source says, and when a command has printed what the page shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.pages import Block, Command, File, difference, steps

PAGE = """
# Title

<!-- before: cp a.pth
     b.pth -->
```console
$ first --long \\
    option
shown 1
…
$ second
```

`module.py`:

```python
x = 1
```

<details><summary><code>folded.py</code></summary>

```python
y = 2
```

</details>

<!-- not run: needs a GPU -->
```console
$ third
```

```yaml
not: a file
```
"""


def test_steps_of_a_page() -> None:
    first, module, folded, third = steps(PAGE)
    assert isinstance(first, Block) and isinstance(third, Block)
    assert first.before == ["cp a.pth b.pth"]
    assert first.commands == [Command(7, "first --long \\\n    option", ["shown 1", "…"]), Command(11, "second")]
    assert [module, folded] == [File("module.py", "x = 1\n"), File("folded.py", "y = 2\n")]
    assert first.left_out is None
    assert third.left_out == "needs a GPU"


@pytest.mark.parametrize("block", ["```bash\nmake all\n```\n", "```console\nmake all\n```\n"])
def test_commands_that_a_reader_would_miss_are_an_error(block: str) -> None:
    with pytest.raises(ValueError, match="line"):
        steps(block)


PRINTED = [
    "name    metric [%]",
    "------  ----------",
    "demo    0.9268",
    "10:47:43 INFO    onnx-cpu: 3 of 12, about 32 s left",
    "max abs 3.1e-05, 12.0 s on cpu",
    "drop -1.1e-02, +0.0e+00",
    "done",
]


@pytest.mark.parametrize(
    "shown",
    [
        [],
        PRINTED[:3] + PRINTED[4:],
        ["name  metric [%]", "----  ---", "demo  0.9301", "…"],
        ["…", "demo  0.9268", "…", "done"],
        ["…", "max abs 9.9e-06, 310 s on …", "…", "done"],
        ["…", "drop -2.0e-02, +0.0e+00", "…"],
    ],
)
def test_what_is_shown_was_printed(shown: list[str]) -> None:
    assert difference(shown, PRINTED) is None


@pytest.mark.parametrize(
    ("shown", "missing"),
    [
        (["name    metric [%]"], "(nothing more, but this was printed: ------  ----------)"),
        (["demo    0.9268", "…"], "demo    0.9268"),
        (["…", "demo    0.90", "…"], "demo    0.90"),
        (["…", "max abs 3.1e-07, 12.0 s on cpu", "…"], "max abs 3.1e-07, 12.0 s on cpu"),
        (["…", "drop +1.1e-02, +0.0e+00", "…"], "drop +1.1e-02, +0.0e+00"),
        (["…", "drop -1.1e-02, +1.0e-06", "…"], "drop -1.1e-02, +1.0e-06"),
        (["…", "done", "demo    0.9268"], "demo    0.9268"),
        (["…", "name    metric (%)", "…"], "name    metric (%)"),
    ],
)
def test_what_is_shown_was_not_printed(shown: list[str], missing: str) -> None:
    assert difference(shown, PRINTED) == missing


def test_the_quick_start_has_steps() -> None:
    page = Path(__file__).parents[2] / "docs" / "quick_start.md"
    assert len(steps(page.read_text(encoding="utf-8"))) > 5

"""Deploy configs: YAML, and Python files that are read as data."""

from __future__ import annotations

from pathlib import Path

from shared.config import load_config
from tests.fuzz.engine import Reader

_ROOT = Path(__file__).parents[2]

YAML = Reader(
    "yaml",
    load_config,
    ".yaml",
    lambda: [file.read_bytes() for file in sorted((_ROOT / "configs").glob("*.yaml"))],
    (
        *(
            b"&a ",
            b"*a",
            b"<<: *a\n",
            b"- ",
            b": ",
            b"? ",
            b"!!binary ",
            b"!!python/name:os.system ",
            b"---\n",
            b"%YAML 1.1\n",
        ),
        *(b"[", b"]", b"{", b"}", b'"', b"'", b"|\n", b">\n", b"\t", b"\x00", b"\xff", b"\\0", b"#", b".nan", b".inf"),
        *(b"[" * 100, b"9" * 400, b"1e999", b"~", b"${HOME}", b"$", b"\n" + b" " * 50, b"\xe2\x80\xa8"),
    ),
)

PYTHON = Reader(
    "python_config",
    load_config,
    ".py",
    lambda: [
        *((_ROOT / "tests/data/awml_deploy_config.py").read_bytes() for _ in range(2)),
        *(file.read_bytes() for file in sorted((_ROOT / "tests/data/awml_configs").rglob("*.py"))),
        b"a = dict(x=1)\nb = [a, a, *[1, 2]]\nc = {**a, 'y': f'{b[1]}'}\nd = 'x'.strip() + 'y'\ne = 2 << 30\n",
    ],
    (
        *(
            b"a = dict(l=a, r=a)\n",
            b"b = [*b, *b]\n",
            b"d = d + d\n",
            b"d = f'{d}{d}'\n",
            b"e = e ** 99\n",
            b"e = e * e\n",
        ),
        *(b"(" * 100, b"[" * 100, b"-" * 500, b"_base_ = ['input.py']\n", b"\\0", b"\x00", b"import os\n", b"exit()\n"),
        *(b"lambda: 0", b"{}", b"[0]", b"None", b"'%9999999999d' % 1", b"1e999", b"~", b"not ", b"if a:\n    b = 1\n"),
    ),
)

"""The real Python bindings of TensorRT releases, imported without TensorRT: which names each of them has.

The bindings' one shared object is fetched out of the published wheel (1 MB, by ranged reads; the libraries of 1 to 2 GB
are left where they are), and imported with doubles for the C libraries that it links. All classes, members and
docstrings are real then; calling anything would crash, so nothing is called. Names are kept in ``.cache/``.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "trt_bindings"


class Unavailable(Exception):
    """The bindings can't be had here; says why."""


@dataclass(frozen=True)
class Release:
    """A published release.

    Attributes:
        version: TensorRT's version.
        requirement: what pip calls the wheel that holds the bindings.
        python: the Python that its wheel is for; None: it has one for every Python, so for ours.
    """

    version: str
    requirement: str
    python: str | None = None


RELEASES = (
    Release("8.6.0", "tensorrt==8.6.0", "3.10"),
    Release("8.6.1", "tensorrt_bindings==8.6.1"),
    Release("10.0.1", "tensorrt-cu12-bindings==10.0.1"),
    Release("10.9", "tensorrt-cu12-bindings==10.9.0.34"),
    Release("10.16", "tensorrt-cu12-bindings==10.16.1.11"),
    Release("11.1", "tensorrt-cu12-bindings==11.1.0.106"),
    Release("11.4", "tensorrt-cu12-bindings==11.4.0.106"),
    Release("rtx 1.7", "tensorrt-rtx-cu13-bindings==1.7.1.116"),
)

# Runs in the release's own Python: imports the extension module, prints class name -> member names as JSON.
_LIST_NAMES = """
import importlib.util, json, sys
path, name = sys.argv[1:]
spec = importlib.util.spec_from_file_location(name, path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
names = {"": sorted(dir(module))}
def walk(prefix, value):
    names[prefix] = sorted(dir(value))
    for member in dir(value):
        inner = getattr(value, member, None)
        if isinstance(inner, type) and not member.startswith("_"):
            walk(prefix + "." + member, inner)
for member in dir(module):
    value = getattr(module, member)
    if isinstance(value, type):
        walk(member, value)
print(json.dumps(names))
"""


def names_of(release: Release) -> dict[str, set[str]]:
    """Class name (``""`` for the module, ``ILogger.Severity`` for nested ones) to the names of its members.

    Raises:
        Unavailable: no network, no compiler, or not the Python that the release needs.
    """
    kept = CACHE / f"{release.version.replace(' ', '-')}.json"
    if not kept.is_file():
        listed = _list_names(release)
        kept.parent.mkdir(parents=True, exist_ok=True)
        temporary = kept.with_suffix(".partial")
        temporary.write_text(listed, encoding="utf-8")
        temporary.replace(kept)
    return {name: set(members) for name, members in json.loads(kept.read_text(encoding="utf-8")).items()}


def _list_names(release: Release) -> str:
    python = sys.executable if release.python is None else find_python(release.python)
    if shutil.which("gcc") is None or shutil.which("nm") is None:
        raise Unavailable("no gcc or nm here to make doubles of TensorRT's libraries with")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        module = _fetch_extension(release, folder)
        _make_doubles(module, folder)
        answer = subprocess.run(
            [python, "-c", _LIST_NAMES, str(module), module.name.split(".")[0]],
            capture_output=True, text=True, check=False, timeout=600, env={"LD_LIBRARY_PATH": str(folder)},
        )  # fmt: skip
    if answer.returncode != 0:
        raise AssertionError(f"bindings of {release.version} do not import: {answer.stderr[-500:]}")
    return answer.stdout


def find_python(version: str) -> str:
    """A Python of that version on this machine.

    Raises:
        Unavailable: there is none.
    """
    candidates = [
        shutil.which(f"python{version}"),
        *map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python")),
    ]
    for candidate in filter(None, candidates):
        check = "import sys; print('%d.%d' % sys.version_info[:2])"
        answer = subprocess.run([candidate, "-c", check], capture_output=True, text=True, check=False, timeout=600)
        if answer.stdout.strip() == version:
            return candidate
    raise Unavailable(f"no Python {version} on this machine")


def _fetch_extension(release: Release, folder: Path) -> Path:
    report = folder / "report.json"
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps",
        "--only-binary=:all:", "--target", str(folder / "none"), "--report", str(report), release.requirement,
    ]  # fmt: skip
    if release.python is not None:
        command += ["--python-version", release.python]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if answer.returncode != 0:
        raise Unavailable(f"pip finds no {release.requirement} ({answer.stderr.strip().splitlines()[-1:]})")
    address = json.loads(report.read_text(encoding="utf-8"))["install"][0]["download_info"]["url"]
    try:
        with zipfile.ZipFile(_RemoteFile(address)) as wheel:
            member = next(name for name in wheel.namelist() if re.fullmatch(r"[^/]+/tensorrt(_rtx)?\.so", name))
            target = folder / Path(member).name
            target.write_bytes(wheel.read(member))
    except (urllib.error.URLError, TimeoutError, OSError) as error:
        raise Unavailable(f"{release.requirement} can't be downloaded ({error})") from error
    return target


class _RemoteFile(io.RawIOBase):
    """A file behind an address, read by ranges."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._position = 0
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=60) as answer:
            self._size = int(answer.headers["Content-Length"])

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._position + size, self._size)
        if end <= self._position:
            return b""
        header = {"Range": f"bytes={self._position}-{end - 1}"}
        with urllib.request.urlopen(urllib.request.Request(self._address, headers=header), timeout=60) as answer:
            data: bytes = answer.read()
        self._position += len(data)
        return data


def _make_doubles(module: Path, folder: Path) -> None:
    """Shared libraries under the names that the module links, with every C function that it wants of them."""
    dynamic = subprocess.run(["readelf", "-d", str(module)], capture_output=True, text=True, check=True).stdout
    needed = [name for name in re.findall(r"\(NEEDED\).*\[(.+?)\]", dynamic) if re.search(r"nv|tensorrt|cuda", name)]
    listed = subprocess.run(["nm", "-D", "--undefined-only", str(module)], capture_output=True, text=True, check=True)
    # TensorRT's own symbols carry no version; those of libc and libstdc++ do, and Python's are in the interpreter.
    wanted = [
        name
        for name in re.findall(r"\bU (\w+)$", listed.stdout, re.MULTILINE)
        if re.match(r"create|get|init|_ZN\d+nv", name)
    ]
    source = folder / "double.c"
    for index, library in enumerate(needed):
        functions = wanted if index == 0 else []
        source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in functions), encoding="utf-8")
        subprocess.run(
            ["gcc", "-shared", "-fPIC", str(source), "-o", str(folder / library), f"-Wl,-soname,{library}"], check=True
        )

"""What images are made from, read as files: targets, Dockerfiles, compose, locks. No engine is needed."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from shared.errors import EnvironmentLacks

ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
TARGETS = sorted((ROOT / "docker" / "targets").glob("*.env"))
LOCKS = ROOT / "requirements" / "lock"
ROOMS = {"shared", "exporter", "trt_builder", "runtime", "verifier", "evaluator", "demo"}
# Modules whose package has another name; modules that base images bring, or that a tool offers more with, where a user
# has them.
PACKAGES = {
    "cv2": "opencv-python-headless", "lzf": "python-neo-lzf", "ruamel": "ruamel-yaml", "PIL": "pillow",
    "sklearn": "scikit-learn", "mmcv": "mmcv-lite", "google": "protobuf", "modelopt": "nvidia-modelopt",
}  # fmt: skip
NOT_LOCKED = {
    "tensorrt", "tensorrt_rtx", "pycuda", "mmpretrain", "torchvision", "mlflow", "rerun", "sqlalchemy", "ray",
}  # fmt: skip
# What shared/ imports for another tool: masks of labels are read by the evaluator.
OF_OTHER_TOOLS = {"runtime": {"PIL"}}
# Which lock files make up an image, and whose code it holds.
IMAGES = {
    "verifier": (["verifier"], ["verifier"]),
    "evaluator": (["evaluator"], ["evaluator"]),
    "trt_builder": (["trt_builder"], ["trt_builder"]),
    "runtime": (["runtime-onnx", "torch-cuda"], ["runtime", "shared"]),
    "exporter": (["exporter", "torch-cuda"], ["exporter", "demo", "shared"]),
}


def _variables(target: Path) -> dict[str, str]:
    lines = [line for line in target.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def _entrypoint() -> ModuleType:
    return _script(ROOT / "docker" / "entrypoint.py")


def _script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# -- targets ----------------------------------------------------------------------------------------------------------


def test_the_targets_of_the_issue_are_there() -> None:
    expected = {"x86-trt10.8", "x86-trt8.6", "x86-trt10.13", "x86-trt11", "jetson-jp6", "jetson-jp7", "rtx", "cpu"}
    assert {target.stem for target in TARGETS} == expected


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.stem)
def test_a_target_pins_everything(target: Path) -> None:
    variables = _variables(target)
    keys = ["TARGET_NAME", "PYTHON_BASE", "TENSORRT_BASE", "TENSORRT", "TENSORRT_REQUIREMENTS", "TORCH", "CUDA",
            "PYTHON", "ARCH"]  # fmt: skip
    assert list(variables) == keys
    assert variables["TARGET_NAME"] == target.stem
    for base in (variables["PYTHON_BASE"], variables["TENSORRT_BASE"]):
        image, _, tag = base.rpartition(":")
        assert image, f"{base} has no tag"
        assert tag != "latest"
    assert re.fullmatch(r"|tensorrt(_rtx)?==\d+(\.\d+)+", variables["TENSORRT"])
    assert (
        variables["TENSORRT_REQUIREMENTS"] == "none" or (LOCKS / f"{variables['TENSORRT_REQUIREMENTS']}.txt").exists()
    )
    assert (LOCKS / f"torch-{variables['TORCH']}.txt").exists()


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.stem)
def test_the_page_of_targets_says_what_the_file_says(target: Path) -> None:
    page = (ROOT / "docs" / "targets.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith(f"| `{target.stem}` |"))
    variables = _variables(target)
    assert variables["TENSORRT_BASE"] in row
    assert (variables["TENSORRT"].rpartition("==")[2] or "none") in row
    for key in ("CUDA", "PYTHON", "ARCH"):
        assert f" {variables[key]} " in row, f"{key} {variables[key]}"


# -- Dockerfiles and compose ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_a_dockerfile_keeps_to_the_rules(path: Path) -> None:
    lines = path.read_text().splitlines()
    users = [line for line in lines if line.startswith("USER ")]
    last_stage = max(index for index, line in enumerate(lines) if line.startswith("FROM "))
    assert users == ["USER 10001:10001"]
    assert lines.index(users[0]) > last_stage
    assert lines[-1] == 'ENTRYPOINT ["python3", "/app/entrypoint.py"]'
    text = path.read_text()
    assert not re.search(r"^(ADD|VOLUME|HEALTHCHECK|EXPOSE|MAINTAINER)\b", text, re.MULTILINE)
    assert "chmod" not in text
    assert "apt-get" not in text
    installs = [command for command in re.split(r"^(?=[A-Z]+ )", text, flags=re.MULTILINE) if " install " in command]
    assert installs
    # What an index gives is pinned by its hash; packages that add to the tools are the user's own files.
    from_files = [command for command in installs if "--no-index" in command]
    assert len(from_files) == 1 and "--find-links /plugins /plugins/*.whl;" in from_files[0]
    for command in set(installs) - set(from_files):
        assert "--require-hashes" in command
        assert "--mount=type=cache" in command
    # Our code comes last, so that a change of it rebuilds nothing else.
    assert text.index("COPY shared") > text.index("COPY --from=packages")


def _services() -> dict[str, dict[str, object]]:
    services = yaml.safe_load((ROOT / "docker" / "services.yaml").read_text())["services"]
    assert isinstance(services, dict)
    return services


CLUSTER = {"cluster-head", "cluster-worker"}


@pytest.mark.parametrize("name", sorted(_services()))
def test_a_service_is_shut_in(name: str) -> None:
    service = _services()[name]
    assert service["read_only"] is True
    if name not in CLUSTER:
        assert service["network_mode"] == "none"
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"depends_on", "privileged", "ports", "healthcheck", "devices", "deploy"} & service.keys()
    volumes = service["volumes"]
    assert isinstance(volumes, list)
    for volume in volumes:
        if isinstance(volume, dict):
            # Written to are workspaces and, outside of them, the key of this user.
            assert volume["target"] in ("/workspace", "/state") or volume["read_only"] is True
        else:
            assert volume.endswith(":ro")


@pytest.mark.parametrize("name", sorted(_services()))
def test_the_key_is_shared_by_all_tools_and_lies_in_no_workspace(name: str) -> None:
    volumes = _services()[name]["volumes"]
    assert isinstance(volumes, list)
    assert {"type": "volume", "source": "state", "target": "/state"} in volumes
    for dockerfile in (ROOT / "docker").glob("*.Dockerfile"):
        assert "AWML_DEPLOY_KEY=/state/key" in dockerfile.read_text()


def test_the_nodes_of_a_cluster_reach_each_other_and_nothing_else() -> None:
    text = (ROOT / "docker" / "services.yaml").read_text()
    assert yaml.safe_load(text)["networks"] == {"cluster": {"internal": True}}
    for name in CLUSTER:
        assert _services()[name]["networks"] == ["cluster"]
        assert _services()[name]["profiles"] == ["cluster"]


def test_ray_is_in_images_for_a_cluster_only() -> None:
    for path in DOCKERFILES:
        text = path.read_text()
        assert ("cluster.txt" in text) == (path.stem.partition(".")[0] != "evaluator")
        assert ("ARG RAY=no" in text) == ("cluster.txt" in text)
    for name, service in _services().items():
        build = service.get("build")
        if isinstance(build, dict) and name != "evaluator":
            assert build["args"]["RAY"] == "${RAY:-no}"


def test_every_image_takes_packages_that_add_to_the_tools() -> None:
    for path in DOCKERFILES:
        assert "ARG PLUGINS=no\nCOPY docker/plugins /plugins\n" in path.read_text()
    built = [service["build"] for service in _services().values() if "build" in service]
    assert built and all(isinstance(build, dict) and build["args"]["PLUGINS"] == "${PLUGINS:-no}" for build in built)


def test_every_tool_has_a_service() -> None:
    expected = {
        "exporter",
        "trt_builder",
        "runtime-pytorch",
        "runtime-onnx",
        "runtime-tensorrt",
        "verifier",
        "evaluator",
    }
    assert expected <= _services().keys()


# -- locks ------------------------------------------------------------------------------------------------------------


def _imports(room: str) -> Iterator[str]:
    for path in (ROOT / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                names = [node.module]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "lazy_import":
                names = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
            yield from (name.split(".")[0] for name in names)


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_has_the_packages_that_its_tool_imports(image: str) -> None:
    locks, rooms = IMAGES[image]
    text = "\n".join((LOCKS / f"{lock}.txt").read_text() for lock in locks)
    locked = {line.split("==")[0] for line in text.splitlines() if "==" in line and not line.startswith(" ")}
    imported = {name for room in rooms for name in _imports(room)} - ROOMS - set(sys.stdlib_module_names) - NOT_LOCKED
    imported -= OF_OTHER_TOOLS.get(image, set())
    missing = {name for name in imported if PACKAGES.get(name, name.replace("_", "-")) not in locked}
    assert not missing, f"add to requirements/lock/{locks[0]}.in, then make lock"


def _locked(name: str, python: str) -> dict[str, str]:
    """Versions by package that a lock installs on a Python."""
    pins = (Requirement(line.rstrip(" \\")) for line in _lines(name) if "==" in line and not line.startswith(" "))
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    return {
        canonicalize_name(pin.name): str(pin.specifier)
        for pin in pins
        if pin.marker is None or pin.marker.evaluate(environment)
    }


def _lines(name: str) -> list[str]:
    return (LOCKS / f"{name}.txt").read_text().splitlines()


@pytest.mark.parametrize("name", ["verifier", "trt_builder", "runtime-onnx", "runtime-tensorrt", "exporter"])
def test_ray_changes_no_version_of_a_tools_packages(name: str) -> None:
    for python in ("3.11",) if name == "exporter" else ("3.10", "3.11", "3.12"):
        tool, cluster = _locked(name, python), _locked("cluster", python)
        assert {each: tool[each] for each in tool.keys() & cluster} == {
            each: cluster[each] for each in tool.keys() & cluster
        }


def test_locks_name_no_host_and_no_folder() -> None:
    for path in LOCKS.glob("*.txt"):
        assert "://" not in path.read_text(), path.name
        assert "--find-links" not in path.read_text(), path.name


@pytest.mark.parametrize(
    ("wheel", "used"),
    [
        ("numpy-2.2.6-cp310-cp310-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", True),
        ("numpy-2.2.6-cp313-cp313-manylinux_2_28_aarch64.whl", True),
        ("cryptography-46-cp311-abi3-manylinux_2_34_x86_64.whl", True),
        ("torch-2.13.0-cp312-none-linux_x86_64.whl", True),
        ("uv-0.13-py3-none-manylinux_2_28_x86_64.whl", True),
        ("click-8.5.1-py3-none-any.whl", True),
        ("numpy-2.2.6-cp313-cp313t-manylinux_2_28_aarch64.whl", False),
        ("numpy-2.2.6-cp39-cp39-manylinux_2_28_x86_64.whl", False),
        ("numpy-2.2.6-cp312-cp312-musllinux_1_2_x86_64.whl", False),
        ("numpy-2.2.6-cp312-cp312-manylinux_2_28_ppc64le.whl", False),
        ("numpy-2.2.6-cp312-cp312-macosx_14_0_arm64.whl", False),
        ("numpy-2.2.6-cp312-cp312-win_amd64.whl", False),
        ("numpy-2.2.6-pp310-pypy310_pp73-manylinux_2_28_x86_64.whl", False),
    ],
)
def test_locks_have_the_hashes_of_wheels_that_may_be_installed(wheel: str, used: bool) -> None:
    assert _script(LOCKS / "linux_only.py").is_used(wheel) == used


def test_a_lock_keeps_its_versions_and_the_hashes_that_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = _script(LOCKS / "linux_only.py")
    one, two, three = ("1" * 64, "2" * 64, "3" * 64)
    lock = tmp_path / "lock.txt"
    before = f"""\
a==1 ; python_full_version < '3.11' \\
    --hash=sha256:{one} \\
    --hash=sha256:{two}
b==2 \\
    --hash=sha256:{three}
"""
    lock.write_text(before)
    monkeypatch.setattr(script, "used_hashes", lambda *_: {one, two, three})
    script.shorten(lock, "3.10")
    assert lock.read_text() == before
    monkeypatch.setattr(script, "used_hashes", lambda *_: {two, three})
    script.shorten(lock, "3.10")
    assert lock.read_text() == before.replace(f"    --hash=sha256:{one} \\\n", "")
    monkeypatch.setattr(script, "used_hashes", lambda *_: {two})
    with pytest.raises(ValueError, match="no file of b==2 may be installed"):
        script.shorten(lock, "3.10")


def test_locks_pin_what_the_local_environments_have() -> None:
    """`make setup` and the images install the same versions of what the tools import."""
    local = dict(
        line.split("==") for line in (ROOT / "requirements" / "tools.txt").read_text().splitlines() if "==" in line
    )
    pinned = [line.split("==") for line in (LOCKS / "pins.txt").read_text().splitlines() if "==" in line]
    for name, rest in pinned:
        version, _, marker = rest.partition(" ; ")
        if name in local and "<" not in marker:
            assert version == local[name], f"{name}: requirements/tools.txt has {local[name]}"


# -- the pinned TensorRT ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("found", ["10.8.0.43", "10.8.1", "10.8"])
def test_the_pinned_tensorrt_is_taken(monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__=found))
    _entrypoint().check_tensorrt("tensorrt==10.8")


@pytest.mark.parametrize("found", ["10.13.0", "10.80", "8.6.1", "11.1.0"])
def test_another_tensorrt_is_refused(monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__=found))
    with pytest.raises(EnvironmentLacks, match=rf"pinned to tensorrt==10\.8, and finds tensorrt {found}"):
        _entrypoint().check_tensorrt("tensorrt==10.8")


def test_a_missing_tensorrt_is_refused() -> None:
    with pytest.raises(EnvironmentLacks, match=r"can't be imported"):
        _entrypoint().check_tensorrt("tensorrt_that_is_not_here==10.8")


def test_an_image_without_tensorrt_checks_nothing() -> None:
    _entrypoint().check_tensorrt("")

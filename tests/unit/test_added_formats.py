"""A data format that another package adds."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.config import from_resolved, load_config, resolved
from shared.data import DataSettings, open_dataset
from shared.errors import ConfigError, EnvironmentLacks
from tests.support import plugin_packages
from tests.support.extending_page import module_of_page

FORMAT = module_of_page("recordings.py")
CONFIG = "model: {type: centerpoint}\ndata: {format: recordings}\n"


@pytest.fixture
def recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder; the package that adds its format is installed."""
    plugin_packages.install(
        monkeypatch,
        tmp_path / "site",
        "recordings_plugin",
        {"recordings.py": FORMAT},
        {"awml_deploy.formats": {"recordings": "recordings_plugin.recordings"}},
    )
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("b.rec", "a.rec"):
        (folder / name).touch()
    return folder


def config_file(tmp_path: Path, text: str = CONFIG) -> Path:
    file = tmp_path / "deploy.yaml"
    file.write_text(text)
    return file


def test_it_opens_its_view(recordings: Path) -> None:
    dataset = open_dataset(DataSettings("recordings", recordings))
    assert [dataset.sample(index).token for index in range(len(dataset))] == ["a", "b"]


def test_it_can_be_concatenated(recordings: Path) -> None:
    parts = [DataSettings("recordings", recordings), DataSettings("recordings", recordings)]
    assert len(open_dataset(DataSettings("concat", sources=parts))) == 4


def test_a_view_that_it_lacks_is_named_with_the_formats_that_have_it(recordings: Path) -> None:
    with pytest.raises(ConfigError, match=r"'recordings' has no images.*these have: coco, folder"):
        open_dataset(DataSettings("recordings", recordings), task="detection2d")


def test_a_config_may_name_it(recordings: Path, tmp_path: Path) -> None:
    assert load_config(config_file(tmp_path)).data.format == "recordings"


def test_a_config_may_not_name_what_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"deploy\.yaml:2: data\.format: is 'recordings'; should be one of 'argoverse2'"
    ):
        load_config(config_file(tmp_path))


def test_a_name_close_to_one_of_ours_is_guessed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean kitti"):
        load_config(config_file(tmp_path, CONFIG.replace("recordings", "kity")))


def test_a_recorded_config_is_read_where_it_is_not_installed(recordings: Path, tmp_path: Path) -> None:
    recorded = resolved(load_config(config_file(tmp_path)))
    for file in (tmp_path / "site").glob("*.dist-info/*"):
        file.unlink()
    config = from_resolved(recorded, "manifest.json")
    with pytest.raises(ConfigError, match="'recordings' is not known"):
        open_dataset(config.data, root=recordings)


def test_one_that_cannot_be_imported_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin_packages.install(
        monkeypatch,
        tmp_path / "site",
        "broken_plugin",
        {"broken.py": "import no_such_package\n"},
        {"awml_deploy.formats": {"broken": "broken_plugin.broken"}},
    )
    with pytest.raises(EnvironmentLacks, match=r"'broken' of broken_plugin.broken.*no_such_package"):
        open_dataset(DataSettings("broken", tmp_path))
    with pytest.raises(ConfigError, match="these have: coco, folder"):
        open_dataset(DataSettings("argoverse2", tmp_path), task="detection2d")

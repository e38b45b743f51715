"""Training configs: mmengine Python files, read, and the model in them built."""

from __future__ import annotations

import contextlib
import importlib
import logging
import re
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter import awml
from exporter.dataset_classes import classes_of_dataset
from exporter.mmcv_ops import provide_mmcv_ops
from exporter.package_bases import package_bases
from exporter.training_only import for_inference, type_name
from shared.errors import ConfigError, ModelLoadError
from shared.files import sha256_of_json
from shared.lazy import lazy_import

if TYPE_CHECKING:
    from shared.config.schema import DeployConfig

torch = lazy_import("torch")
mmengine = lazy_import("mmengine")

_log = logging.getLogger("exporter")

# mmengine's words for it.
_UNKNOWN_TYPE = re.compile(r"(\S+) is not in the \S+ registry")
# Where packages of OpenMMLab have their metrics.
_METRICS = re.compile(r"mm\w+\.evaluation(\.|$)")


class Unreadable(ConfigError):
    """A file that is no training config, or a broken one."""


class NoModel(ConfigError):
    """A file that can be read as a training config, and has no model: one that others build upon."""


@dataclass(frozen=True)
class TrainingConfig:
    """A training config with its bases merged, before anything that it names is imported.

    Attributes:
        path: the file.
        model: the ``model`` section, plain dicts and lists.
        pipeline: the steps of the test pipeline, flat, in order; empty when the config has none.
        imports: modules that the config wants imported (``custom_imports``).
        may_fail: whether the config is content without them.
        classes: class names of the test data set, where the config says them.
        dataset: type of the test data set.
        absent_bases: bases of packages that are not installed, which count as empty.
        data_classes: class names of the deploy config's data set (`with_data_classes`).
    """

    path: Path
    model: dict[str, Any]
    pipeline: tuple[dict[str, Any], ...]
    imports: tuple[str, ...] = ()
    may_fail: bool = False
    classes: tuple[str, ...] = ()
    dataset: str | None = None
    absent_bases: tuple[str, ...] = ()
    data_classes: tuple[str, ...] = ()

    def with_data_classes(self, classes: tuple[str, ...]) -> TrainingConfig:
        """This config with the class names of a deploy config's data set, where it does not list any itself."""
        return self if self.classes else replace(self, data_classes=classes)

    def class_names(self, count: int) -> tuple[str, ...]:
        """Names of a model's classes: those that the config says. Else those of the deploy config's data set, or of the
        type of the config's own, whichever are ``count``: labels may be of fewer classes than the model knows.
        """
        others = [names for names in (self.data_classes, classes_of_dataset(self.dataset)) if names]
        fitting = [names for names in others if len(names) == count]
        return self.classes or next(iter(fitting + others), ())

    @property
    def digest(self) -> str:
        """Sha256 of what an export depends on: the resolved model and test pipeline, not comments or learning rates."""
        return sha256_of_json(
            {
                "model": _plain(self.model),
                "pipeline": _plain(list(self.pipeline)),
                "imports": list(self.imports),
                "classes": list(self.classes or self.data_classes),
            }
        )


def classes_of_head(
    config: TrainingConfig, count: int, given: Sequence[str] = (), key: str = "data.classes", which: str = ""
) -> list[str]:
    """Names of the ``count`` classes of a head: those that are ``given`` at ``key`` of the deploy config, else
    `TrainingConfig.class_names`. ``which``: of the head's classes, for the error.

    Raises:
        ConfigError: not as many as the head has.
    """
    names = list(given or config.class_names(count))
    if len(names) != count:
        raise ConfigError(
            f"names {len(names)} classes, the head has {count}{which}",
            where=str(config.path),
            hint=f"list them in {key}, or in test_dataloader.dataset.metainfo",
        )
    return names


def training_config_of(config: DeployConfig) -> TrainingConfig:
    """The training config that a deploy config names, with the class names of its data set.

    Raises:
        ConfigError: it names none, or one that can't be read.
    """
    return read_training_config(_named(config.model.config, "config")).with_data_classes(config.data.classes)


def checkpoint_of(config: DeployConfig) -> Path:
    """The checkpoint that a deploy config names.

    Raises:
        ConfigError: it names none.
    """
    return _named(config.model.checkpoint, "checkpoint")


def _named(path: Path | None, key: str) -> Path:
    if path is None:
        # AWML's deploy configs don't name it: there it is an argument of the command.
        raise ConfigError("is missing", where=f"model.{key}", hint=f"give it: --set model.{key}=FILE")
    return path


def read_training_config(path: Path) -> TrainingConfig:
    """Read a training config.

    Raises:
        ConfigError: missing, or not valid (`Unreadable`), or without a model (`NoModel`).
        EnvironmentLacks: the exporter's packages are not installed.
    """
    where = str(path)
    if not path.is_file():
        raise ConfigError("no such training config", where=where, hint="give its path as model.config")
    try:
        with package_bases() as absent, awml.importable() as imported:
            config = mmengine.Config.fromfile(path, import_custom_modules=False)
    except ConfigError as error:
        raise Unreadable(error.message, where=where, hint=error.hint) from error
    # A config is a Python program: whatever it raises is a mistake in it, not ours.
    except (Exception, SystemExit) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise Unreadable(
            f"can't be read as a training config ({type(error).__name__}: {reason})", where=where
        ) from error
    values = config.to_dict()
    if not isinstance(values.get("model"), dict) or "type" not in values["model"]:
        if "defaults" in values:
            raise NoModel(
                "is Hydra's, as autoware-ml's configs are", where=where, hint="mmengine's are read, as AWML has"
            )
        raise NoModel("has no model", where=where, hint="a training config defines model = dict(type=…, …)")
    if absent:
        _log.info("%s: bases count as empty, their package is not installed: %s", where, ", ".join(absent))
    if values.get("data_preprocessor"):
        # As mmengine's runner does.
        values["model"].setdefault("data_preprocessor", values["data_preprocessor"])
    with explain_config_errors(path):
        wanted = _dict(values.get("custom_imports"), "custom_imports", where)
        names = wanted.get("imports") or []
        names = [names] if isinstance(names, str) else names
        return TrainingConfig(
            path=path,
            model=values["model"],
            pipeline=tuple(_flat(_test_pipeline(values, where), where)),
            imports=tuple(dict.fromkeys([*names, *_innermost(imported)])),
            may_fail=bool(wanted.get("allow_failed_imports", False)),
            classes=_class_names(values, where),
            dataset=_test_dataset(values, where).get("type"),
            absent_bases=tuple(absent),
        )


@contextlib.contextmanager
def explain_config_errors(path: Path, *folders: Path) -> Iterator[None]:
    """Inside, a value of a training config may be missing or another than is read: a number for a list, None.

    Args:
        path: the config.
        folders: of code that reads it, beside the exporter's own: another package's model.

    Raises:
        ConfigError: that was so; says where it was read.
    """
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        _log.debug("%s: the whole error", path, exc_info=True)
        # Beside our own lines, those of a framework say little; the first is the one above.
        frames = traceback.extract_tb(error.__traceback__)[1:]
        readers = (Path(__file__).parent, *folders)
        own = [frame for frame in frames if any(Path(frame.filename).is_relative_to(folder) for folder in readers)]
        line = (own or frames)[-1].line
        raise ConfigError(
            f"a value is missing or not what it should be ({type(error).__name__}: {_reason(error)})",
            where=str(path),
            hint=f"it is read here: {line}",
        ) from error


def _reason(error: BaseException) -> str:
    """The first line of what an error says; its type where that is nothing."""
    text = str(error.args[0] if error.args else error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _dict(value: Any, key: str, where: str) -> dict[str, Any]:
    """A section of a training config, empty where there is none.

    Raises:
        ConfigError: it is something else.
    """
    if not isinstance(value or {}, dict):
        raise ConfigError(f"{key} is a {type(value).__name__}, not a dict", where=where, hint=f"{key} = dict(…)")
    return dict(value or {})


def _innermost(modules: Sequence[str]) -> list[str]:
    """Dotted names without those of packages that others of them are in."""
    return [name for name in modules if not any(other.startswith(f"{name}.") for other in modules)]


def _test_dataset(config: dict[str, Any], where: str) -> dict[str, Any]:
    loader, key = _dict(config.get("test_dataloader"), "test_dataloader", where), "test_dataloader.dataset"
    dataset = _dict(loader.get("dataset"), key, where)
    while "dataset" in dataset and "pipeline" not in dataset:
        key = f"{key}.dataset"
        dataset = _dict(dataset["dataset"], key, where)
    return dataset


def _test_pipeline(config: dict[str, Any], where: str) -> list[dict[str, Any]]:
    return list(_test_dataset(config, where).get("pipeline") or config.get("test_pipeline") or [])


def _class_names(config: dict[str, Any], where: str) -> tuple[str, ...]:
    """Class names of the test data set: its own ``metainfo``, or the config's variable that AWML and others use."""
    dataset = _test_dataset(config, where)
    metainfo = dataset.get("metainfo") or config.get("metainfo") or {}
    names = metainfo.get("classes") or config.get("classes") or config.get("class_names")
    names = names or _mapped(metainfo.get("class_mapping") or {}, dataset.get("ignore_index"))
    return tuple(str(name) for name in names)


def _mapped(mapping: dict[str, int], ignored: int | None) -> list[str]:
    """The first of the names that AWML's segmentation maps to each number, in order, but for those that it ignores."""
    names: dict[int, str] = {}
    for name, number in mapping.items():
        if number != ignored:
            names.setdefault(number, name)
    return [names[number] for number in sorted(names)]


def _flat(steps: list[dict[str, Any]], where: str) -> Iterator[dict[str, Any]]:
    """Steps in order, those inside test-time augmentation wrappers included."""
    for step in steps:
        if not isinstance(step, dict):
            raise ConfigError(f"a step of the test pipeline is {step!r}", where=where, hint="steps are dict(type=…, …)")
        yield step
        yield from _flat([inner for inner in step.get("transforms", []) if isinstance(inner, dict)], where)


def _import_custom_modules(config: TrainingConfig) -> None:
    """Import what ``custom_imports`` names; our own types stand in for modules of AWML that can't be imported.

    Raises:
        ConfigError: a module of another package can't be imported.
    """
    without_models = []
    named = {kind for _, kind in _types(config.model)}
    for name in config.imports:
        try:
            importlib.import_module(name)
        except SystemExit as error:
            raise ConfigError(
                f"custom_imports: '{name}' ends the program when it is imported", where=str(config.path)
            ) from error
        except ImportError as error:
            if name.split(".")[0] in awml.AWML_PACKAGES:
                types = awml.stand_in_for(name)
                if types:
                    used = [kind for kind in types if kind in named] or types
                    _log.info("%s can't be imported (%s): our own %s stand in", name, error, ", ".join(used))
                else:
                    without_models.append(name)
            elif _METRICS.match(name):
                without_models.append(name)
            elif config.may_fail:
                _log.warning("%s can't be imported (%s); the config allows that", name, error)
            else:
                raise ConfigError(
                    f"custom_imports: '{name}' can't be imported ({error})", where=str(config.path),
                    hint="install it, or add the folder that holds it to PYTHONPATH",
                ) from error  # fmt: skip
    if without_models:
        _log.info("not imported, as no model is built of what is in them: %s", ", ".join(without_models))


def registry_of(framework: str) -> Any:
    """The models of a framework: its registry.

    Raises:
        EnvironmentLacks: the exporter's packages are not installed.
    """
    provide_mmcv_ops()
    importlib.import_module(f"{framework}.models")
    return importlib.import_module(f"{framework}.registry").MODELS


def build_model(config: TrainingConfig, framework: str = "mmdet3d") -> Any:
    """Build the model of a training config, in evaluation mode, with random weights.

    Training-only parts are dropped: losses whose types are not installed, pretrained weights, gradient checkpointing.

    Args:
        config: the training config.
        framework: the package whose registry the types are looked up in: mmdet3d, mmdet.

    Returns:
        A torch.nn.Module.

    Raises:
        ConfigError: a type is not known or refuses its arguments, or a module that the config imports is not there.
        EnvironmentLacks: the exporter's packages are not installed.
    """
    from mmengine.registry import DefaultScope

    registry = registry_of(framework)
    _import_custom_modules(config)
    section, dropped = for_inference(config.model, registry)
    if dropped:
        _log.info("dropped, as only training needs it: %s", ", ".join(dropped))
    # The frameworks read parts of it as attributes.
    section = mmengine.ConfigDict(section)
    try:
        with DefaultScope.overwrite_default_scope(framework):
            model = registry.build(section)
    except (LookupError, TypeError, ValueError, AttributeError, AssertionError, ImportError) as error:
        reason = _reason(error)
        unknown = _UNKNOWN_TYPE.search(reason)
        if unknown:
            raise unknown_type(config, unknown[1]) from error
        raise ConfigError(
            f"the model can't be built: {reason}",
            where=str(config.path),
            hint="check its arguments",
        ) from error
    return model.eval().requires_grad_(False)


def unknown_type(config: TrainingConfig, name: str) -> ConfigError:
    """The error of a type that no package here has: where the config has it from, and where one adds it."""
    place = next((place for place, found in _types(config.model) if found == name), "model")
    return ConfigError(
        f"{place} is a {name}, which is not known here ({origin_of_types(config, name)})",
        where=str(config.path),
        hint="docs/extending.md, A type of a training config, says how to add it",
    )


def origin_of_types(config: TrainingConfig, name: str) -> str:
    """The modules that a config may have an unknown type from, in words: the one that is called so, if any."""
    modules = [module for module in config.imports if not module.startswith("autoware_ml.")]
    called_so = [module for module in modules if _letters(module.rpartition(".")[2]) in _letters(name)]
    if called_so:
        return f"of {max(called_so, key=lambda module: len(module.rpartition('.')[2]))}"
    sources = [module for module in modules if not awml.is_stood_in_for(module)] or modules
    return f"of {' or '.join(sources)}" if sources else "the config imports no package that could have it"


def _letters(name: str) -> str:
    return name.replace("_", "").lower()


def _types(section: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Place and name of every type in a model section."""
    if isinstance(section, dict):
        if "type" in section:
            yield place or "model", type_name(section["type"])
        for key, value in section.items():
            yield from _types(value, f"{place}.{key}" if place else str(key))
    elif isinstance(section, (list, tuple)):
        for i, value in enumerate(section):
            yield from _types(value, f"{place}.{i}")


def random_weights(model: Any, seed: int) -> None:
    """Give a model random weights that depend on the seed alone, with batch norms as if it had been trained.

    Raises:
        ModelLoadError: the model has no weights.
    """
    if not any(True for _ in model.parameters()):
        raise ModelLoadError("the model has no weights")
    generator = torch.Generator().manual_seed(seed)
    state = model.state_dict()
    for name, value in state.items():
        if not value.is_floating_point():
            continue
        draw = torch.randn(value.shape, generator=generator)
        if name.endswith("running_var"):
            value.copy_(0.5 + draw.abs())
        elif value.dim() > 1:
            # Kaiming's scale keeps activations of the same size through the layers. Layers with a bias are the last of
            # a head: a quarter of that keeps its logits where the sigmoid still tells scores apart.
            scale = 0.25 if name.removesuffix("weight") + "bias" in state else 1.0
            value.copy_(draw * scale * (2.0 / (value[0].numel())) ** 0.5)
        elif name.endswith("weight"):
            value.copy_(1.0 + 0.1 * draw)
        else:
            value.copy_(0.1 * draw)


def _plain(value: Any) -> Any:
    """JSON of a config value; types and functions become their names."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else type_name(value)

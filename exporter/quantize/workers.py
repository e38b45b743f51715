"""Measurements on a cluster: each worker keeps the calibrated model, and measures one choice of INT8 layers a time."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from exporter.quantize.bench import FOLDER, PACKAGES, open_metric_of
from exporter.quantize.measuring import CACHE, CalibratedModel, Measurement, calibrate
from exporter.quantize.session import Session, open_model, sources
from exporter.versions import stage_versions
from shared.cluster import Need, Workers, connect
from shared.config import DeployConfig
from shared.data import open_dataset
from shared.errors import EnvironmentLacks
from shared.work_path import WorkPath
from shared.workspace import Workspace


@contextlib.contextmanager
def measuring_workers(
    cluster: str | None,
    session: Session,
    workspace: Workspace,
    key: Mapping[str, Any],
    data_root: Path | None,
    num_samples: int,
    device: str,
) -> Iterator[Workers[list[str], Measurement] | None]:
    """Workers that measure the model of a session, for `exporter.quantize.bench.open_bench`.

    Args:
        cluster: which, see `shared.cluster.connect`; None: none.
        session: the model.
        workspace: on a volume that all nodes share.
        key: `exporter.quantize.bench.fingerprint`, which must hold on every node.
        data_root: where the data set lies, when not where the config says.
        num_samples: frames to measure on.
        device: cpu or cuda; on cuda each worker gets a GPU of its own, whichever that is.

    Raises:
        UsageError, EnvironmentLacks: no such cluster, or a node lacks something.
        InputError: a node has other files, or not all of them.
    """
    if cluster is None:
        yield None
        return
    kind, root = device.partition(":")[0], workspace.root.absolute()
    need = Need(
        gpu=kind == "cuda",
        module="exporter",
        folders=[root],
        check=functools.partial(require_same, session.config, data_root, key["inputs"], key["versions"]),
    )
    make = functools.partial(open_worker, session.config, data_root, root, num_samples, kind)
    with connect(cluster) as connected, connected.workers(make, need) as workers:
        yield workers


def require_same(
    config: DeployConfig, data_root: Path | None, inputs: Mapping[str, str], versions: Mapping[str, str]
) -> None:
    """Refuse a node that would measure something else.

    Args:
        config: the deploy config.
        data_root: where the data set lies, when not where the config says.
        inputs: sha256 of the files where the command runs.
        versions: of the packages there.

    Raises:
        InputError: a file is missing.
        EnvironmentLacks: a file or a package differs.
    """
    files = sources(config, data_root)
    files["calibration"] = files.pop("calibration_data")
    files["dataset"] = open_dataset(config.data, root=data_root, task=config.task_type).digest()
    for name, found, wanted in (
        ("files", files, inputs),
        ("version", stage_versions(PACKAGES, config), versions),
    ):
        differing = sorted(each for each in wanted if found.get(each) != wanted[each])
        if differing:
            raise EnvironmentLacks(
                f"{differing[0]}: not the {name} that the command has", hint="use the same on all nodes"
            )


def open_worker(
    config: DeployConfig, data_root: Path | None, root: Path, num_samples: int, device: str
) -> Callable[[list[str]], Measurement]:
    """What measures a choice of INT8 layers, in a worker; the ranges are read with the first one."""
    session = open_model(config, data_root)
    metric = open_metric_of(session, num_samples)

    @functools.cache
    def calibrated() -> CalibratedModel:
        return calibrate(session, metric, WorkPath(root, f"{FOLDER}/{CACHE}"), device, afresh=False)

    return lambda int8: calibrated().answer(int8)

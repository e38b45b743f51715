"""The way to a cluster, and out of it again."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from shared.cluster.workers import Make, Need, Outcome, Result, Task, Workers
from shared.errors import EnvironmentLacks, UsageError
from shared.interrupts import terminating
from shared.lazy import lazy_import

ray = lazy_import("ray", install="make setup-cluster (pip install 'ray>=2.60,<3')")

_log = logging.getLogger("cluster")

_LOCAL, _AUTO = "local", "auto"
_MOST_WORKERS = 1024
_MOST_PORTS = 1 << 16

_ATTEMPTS_TO_START = 2
_SECONDS_TO_CONNECT = 5.0
_SECONDS_TO_LEAVE = 5.0
_SECONDS_OF_SILENCE = 2.0
# The smallest store that Ray takes: what goes through it are names and counts.
_OBJECT_STORE_BYTES = 80 << 20

# Ray reads these when it is imported: it reports no usage to its makers, gives up on a cluster that is silent, doesn't
# print what it has to say of processes that died, which we say ourselves, and gives a node's helpers time to start on a
# busy machine.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_GCS_SERVER_REQUEST_TIMEOUT_SECONDS": "5",
    "RAY_gcs_rpc_server_connect_timeout_s": "5",
    "RAY_agent_register_timeout_ms": "120000",
}

# In a cluster of our own, workers have the command's priority: Ray's give way to all else on the machine.
_LOCAL_SETTINGS = {"RAY_worker_niceness": "0"}

_MONITOR = b"ray/autoscaler/_private/monitor.py"

# A connection in HTTP/2, which a Ray head speaks, begins with this preface and empty settings; the answer is a frame of
# settings too (RFC 9113, 3.4 and 6.5).
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_HTTP2_FRAME_HEADER = 9
_HTTP2_SETTINGS = 4


@contextlib.contextmanager
def connect(where: str) -> Iterator[Cluster]:
    """The cluster that ``--cluster`` names, for the time of the block.

    Args:
        where: ``local``, one of its own on this machine; ``local:N``, with N workers; ``auto``, the one that this
            machine is a node of; ``HOST:PORT``, the one whose head is there, and that this machine is a node of.

    Raises:
        UsageError: ``where`` is none of these.
        EnvironmentLacks: Ray is missing, there is no such cluster, or it has another Ray or Python.
    """
    address, workers = _parse(where)
    wanted = {**_SETTINGS, **(_LOCAL_SETTINGS if address == _LOCAL else {})}
    settings = {name: value for name, value in wanted.items() if name not in os.environ}
    options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": logging.CRITICAL}
    if address == _LOCAL:
        # Ray listens on every network, and runs what it is sent; to one of our own nobody else has the token.
        settings.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=_own_token())
        options.update(include_dashboard=False, object_store_memory=_OBJECT_STORE_BYTES, num_cpus=workers)
    elif address != _AUTO:
        require_head(address)
    with _environment(settings), terminating():
        context = _start(where, options)
    try:
        if context.dashboard_url:
            _log.info("Ray's dashboard: http://%s", context.dashboard_url)
        elif address != _LOCAL:
            _log.info("this cluster has no dashboard; with pip install 'ray[default]' on its head it has")
        yield Cluster(context.address_info["gcs_address"], workers, is_here=address == _LOCAL)
    finally:
        if address == _LOCAL:
            _end_monitor()
        _leave()


class Cluster:
    """A cluster that this process is connected to.

    Attributes:
        head: host and port of its head.
        most_workers: how many workers the user asked for; None: as many as there is room for.
        is_here: its one node is this machine, which has what this process has.
    """

    def __init__(self, head: str, most_workers: int | None, *, is_here: bool) -> None:
        self.head = head
        self.most_workers = most_workers
        self.is_here = is_here
        self._last_sign = time.monotonic()

    @contextlib.contextmanager
    def workers(self, make: Make[Task, Result], need: Need) -> Iterator[Workers[Task, Result]]:
        """Workers on all nodes that fit, and on those that join later.

        Args:
            make: see `Make`.
            need: what each takes, and every node must have.

        Raises:
            DeployError: a node lacks something; which node, and what.
            EnvironmentLacks: no node has a GPU, or a processor.
        """
        workers = Workers(self, make, need)
        try:
            workers.enlist_all()
            yield workers
        finally:
            workers.dismiss()

    def run(self, tasks: Iterable[Task], make: Make[Task, Result], need: Need) -> Iterator[Outcome[Task, Result]]:
        """Do tasks side by side; one whose process dies is done again, until it has died `MOST_DEATHS` times.

        Yields:
            What became of each task, in the order in which they end.

        Raises:
            DeployError: see `workers`.
            EnvironmentLacks: no node is left, or the cluster is gone.
        """
        with self.workers(make, need) as workers:
            yield from workers.run(tasks)

    def heard(self) -> None:
        """Note that the cluster has answered."""
        self._last_sign = time.monotonic()

    def require_head(self) -> None:
        """See whether the head is there, if nothing was heard for a while.

        Raises:
            EnvironmentLacks: it is gone.
        """
        if time.monotonic() - self._last_sign < _SECONDS_OF_SILENCE:
            return
        try:
            require_head(self.head)
        except EnvironmentLacks as error:
            raise EnvironmentLacks(
                f"the head of the cluster, {self.head}, is gone",
                hint="finished work is kept: start the cluster and run the command again to continue",
            ) from error
        self.heard()


def _parse(where: str) -> tuple[str, int | None]:
    """The address as Ray wants it, and how many workers are asked for."""
    host, _, number = where.rpartition(":")
    if where in (_LOCAL, _AUTO):
        return where, None
    if host == _LOCAL and number.isdecimal() and 1 <= int(number) <= _MOST_WORKERS:
        return _LOCAL, int(number)
    if host and host != _LOCAL and "/" not in host and number.isdecimal() and int(number) < _MOST_PORTS:
        return where, None
    raise UsageError(
        f"--cluster {where}",
        hint="give local, local:N for N workers, auto, or the HOST:PORT that `ray start --head` prints",
    )


def require_head(address: str) -> None:
    """Refuse an address where no head listens; Ray itself waits for it for most of a minute.

    Raises:
        EnvironmentLacks: nothing listens there, or something else does.
    """
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_CONNECT) as connection:
            if os.environ.get("RAY_USE_TLS", "0") != "0":
                return
            connection.sendall(_HTTP2_PREFACE)
            answer = connection.recv(_HTTP2_FRAME_HEADER)
    except OSError as error:
        raise _no_cluster(address, error.strerror or str(error)) from error
    if len(answer) != _HTTP2_FRAME_HEADER or answer[3] != _HTTP2_SETTINGS:
        raise _no_cluster(address, "what listens there is something else")


def _no_cluster(where: str, reason: str) -> EnvironmentLacks:
    return EnvironmentLacks(
        f"there is no Ray cluster ({reason})",
        where=f"--cluster {where}",
        hint="start one with `ray start --head`, or use --cluster local",
    )


@functools.cache
def _own_token() -> str:
    """Of the clusters that this process starts; Ray reads it once."""
    return secrets.token_hex()


@contextlib.contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _start(where: str, options: dict[str, Any]) -> Any:
    if options["address"] == _LOCAL:
        return _start_local(options)
    try:
        return ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = _one_line(error.__cause__ or error)
        if "Version mismatch" in reason:
            raise EnvironmentLacks(
                f"another Ray or Python runs there ({reason})",
                where=f"--cluster {where}",
                hint="install the same versions here and on all nodes",
            ) from error
        if "No node info" in reason:
            raise EnvironmentLacks(
                "this machine is not a node of it",
                where=f"--cluster {where}",
                hint=f"run the command on a node, or make this machine one with `ray start --address {where}`",
            ) from error
        raise _no_cluster(where, reason.split(". ")[0]) from error


def _start_local(options: dict[str, Any]) -> Any:
    """Start a cluster of our own. Ray gives its processes 15 s, which a busy machine may need twice."""
    for attempt in range(_ATTEMPTS_TO_START):
        try:
            return ray.init(**options)
        except Exception as error:  # Ray raises no other kind when a node does not start
            ray.shutdown()
            if attempt + 1 == _ATTEMPTS_TO_START:
                raise EnvironmentLacks(
                    f"Ray can't start here ({_one_line(error)})",
                    where="--cluster local",
                    hint="is the machine very busy, or /tmp full? Its logs are in /tmp/ray/session_latest/logs",
                ) from error
    raise AssertionError("the last attempt returns or raises")


def _end_monitor() -> None:
    """End the process of our cluster that would let it grow, which nothing waits for: Ray gives it a second to end."""
    for children in Path("/proc/self/task").glob("*/children"):
        # Threads and processes may be gone by the time that they are looked at.
        with contextlib.suppress(OSError):
            for process in children.read_text().split():
                with contextlib.suppress(OSError):
                    if _MONITOR in Path(f"/proc/{process}/cmdline").read_bytes():
                        os.kill(int(process), signal.SIGKILL)


def _leave() -> None:
    """Disconnect, and end a cluster of our own. Leaving one that is gone would hang, so nobody waits for long."""
    leaving = threading.Thread(target=ray.shutdown, name="leave-cluster", daemon=True)
    leaving.start()
    leaving.join(_SECONDS_TO_LEAVE)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())

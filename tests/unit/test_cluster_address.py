"""What `--cluster` can name: what is refused before anything starts, in one line and without a minute of waiting."""

from __future__ import annotations

import http.server
import socket
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from shared.cluster import connection
from shared.cluster.connection import connect
from shared.errors import EnvironmentLacks, UsageError
from shared.lazy import lazy_import
from tests.support.processor_time import best_of


@pytest.fixture
def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def web_server() -> Iterator[int]:
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "where", ["", "x", "local:", "local:0", "local:-1", "local:2000", "head", ":6379", "head:port", "ray://head:10001"]
)
def test_what_names_no_cluster_is_refused(where: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT"), connect(where):
        pass


def test_nobody_listens_there(free_port: int) -> None:
    def seconds() -> float:
        started = time.monotonic()
        with (
            pytest.raises(EnvironmentLacks, match=r"there is no Ray cluster \(Connection refused\)"),
            connect(f"127.0.0.1:{free_port}"),
        ):
            pass
        return time.monotonic() - started

    assert best_of(seconds, enough=5.0) < 5.0


def test_something_else_listens_there(web_server: int) -> None:
    with (
        pytest.raises(EnvironmentLacks, match="what listens there is something else"),
        connect(f"127.0.0.1:{web_server}"),
    ):
        pass


def test_without_ray_the_set_up_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(connection, "ray", lazy_import("ray", install="make setup-cluster"))
    with pytest.raises(EnvironmentLacks, match="make setup-cluster"), connect("local"):
        pass

"""The embedded server is a real one, alone on its folder, keeps what it was told, and dies with its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gigamask.errors import Conflict, QueueUnavailable
from gigamask.queue import embedded
from gigamask.queue.connection import Connection
from gigamask.queue.embedded import embedded_redis, embedded_server


def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    with embedded_redis(tmp_path) as url:
        Connection(url).call("SET", "key", "value")
    with embedded_redis(tmp_path) as url:
        assert Connection(url).call("GET", "key") == "value"


def test_a_server_that_was_killed_comes_back_where_it_was_with_what_it_held(tmp_path: Path) -> None:
    with embedded_server(tmp_path) as server:
        connection = Connection(server.url)
        connection.call("CONFIG", "SET", "appendfsync", "always")
        connection.call("SET", "key", "value")
        assert server.revive() is None
        kill_server(connection)
        deadline = time.monotonic() + 10
        while (code := server.revive()) is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert code == -signal.SIGKILL
        assert connection.call("GET", "key") == "value"


def kill_server(connection: Connection) -> None:
    os.kill(int(connection.call("INFO", "server")["process_id"]), signal.SIGKILL)


def test_a_server_that_cannot_come_back_says_why(tmp_path: Path) -> None:
    with embedded_server(tmp_path) as server:
        connection = Connection(server.url)
        connection.call("SET", "key", "value")
        kill_server(connection)
        for path in (tmp_path / "appendonlydir").glob("*.manifest"):
            path.write_text("not a manifest")
        with pytest.raises(QueueUnavailable, match="did not come up"):
            while True:
                server.revive()
                time.sleep(0.02)


def test_a_refusal_is_told_as_one(connection: Connection) -> None:
    connection.call("SET", "text", "a")
    with pytest.raises(QueueUnavailable, match="refuses: WRONGTYPE"):
        connection.call("HGETALL", "text")
    with pytest.raises(QueueUnavailable, match=r"refuses: .*WRONGTYPE"):
        connection.run("return redis.call('HGETALL', KEYS[1])", ["text"])


def test_one_folder_has_one_server(tmp_path: Path) -> None:
    with embedded_redis(tmp_path), pytest.raises(Conflict, match="another embedded Redis"), embedded_redis(tmp_path):
        pass


def test_no_file_is_left_beside_the_data(tmp_path: Path) -> None:
    with embedded_redis(tmp_path / "redis") as url:
        sockets = Path(url.removeprefix("unix://")).parent
        assert sockets.is_dir()
    assert not sockets.exists()


def test_a_long_temporary_folder_does_not_break_the_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with embedded_redis(tmp_path / "redis") as url:
        assert Connection(url).call("PING")


def test_a_server_that_does_not_come_up_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "MAX_SOCKET_PATH", 100_000)
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with pytest.raises(QueueUnavailable, match=r"did not come up.*(socket|path)"), embedded_redis(tmp_path / "redis"):
        pass


def test_a_redis_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(QueueUnavailable, match="does not answer"):
        Connection(f"unix://{tmp_path}/absent.sock").call("PING")


def test_a_wrong_url_is_named() -> None:
    with pytest.raises(QueueUnavailable, match="redis://"):
        Connection("http://localhost")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_the_server_dies_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from gigamask.queue.embedded import embedded_redis\n"
        "with embedded_redis(Path(sys.argv[1])) as url: print(url, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        url = parent.stdout.readline().strip()
        server = int(Connection(url).call("INFO", "server")["process_id"])
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{server}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{server}").exists()

"""The control socket and its client."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_support import until

from appliance.agent.client import ControlClient, ControlError
from appliance.agent.control import MAX_REQUEST_BYTES, CommandError, ControlServer
from appliance.agent.green import in_thread, sleep
from appliance.agent.unix_socket import UnixSocketError


def refuse(request: Any) -> None:
    raise CommandError("not today")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "run" / "control.sock")


@pytest.fixture
def server(path: str) -> Iterator[ControlServer]:
    made = ControlServer(
        path, {"echo": dict, "refuse": refuse, "break": lambda request: 1 / 0, "long": lambda request: ["x" * 1000] * 10000}
    )
    made.start()
    yield made
    made.close()


def ask(path: str, command: str, **arguments: Any) -> Any:
    def request() -> Any:
        with ControlClient(path, timeout=60) as client:
            return client.request(command, **arguments)

    return in_thread(request)


def raw(path: str, data: bytes, answers: int = 1) -> list[Any]:
    """What is answered to these bytes."""

    def talk() -> list[Any]:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(60)
            client.connect(path)
            client.sendall(data)
            with client.makefile() as file:
                return [json.loads(file.readline()) for _ in range(answers)]

    return in_thread(talk)


def test_a_request_is_answered(path, server):
    assert ask(path, "echo", limit=3, text="Grüße\n") == {"command": "echo", "limit": 3, "text": "Grüße\n"}


def test_requests_on_one_connection_are_answered_in_order_however_they_are_cut(path, server):
    assert [answer["result"]["n"] for answer in raw(path, b'{"command":"echo","n":1}\n{"command":"echo","n":2}\n', 2)] == [1, 2]

    def slowly() -> str:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            for byte in b'{"command":"echo"}\n':
                client.send(bytes([byte]))
            return client.makefile().readline()

    assert json.loads(in_thread(slowly)) == {"ok": True, "result": {"command": "echo"}}


def test_one_client_may_ask_again(path, server):
    with ControlClient(path) as client:
        assert [in_thread(lambda n=n: client.request("echo", n=n))["n"] for n in (1, 2, 3)] == [1, 2, 3]


def test_a_long_answer_comes_whole(path, server):
    assert ask(path, "long") == ["x" * 1000] * 10000


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("refuse", "not today"),
        ("nosuch", "no command 'nosuch'; there are echo, refuse, break, long"),
        ("break", "a fault of the switch: Zero"),
    ],
)
def test_a_refusal_is_an_error_in_words(path, server, command, error):
    with pytest.raises(ControlError, match=error):
        ask(path, command)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"\n", "not JSON"),
        (b"\xff\xfe\n", "not JSON"),
        (b"[" * 60000 + b"\n", "not JSON"),
        (b"3\n", "a request is an object"),
        (b"{}\n", "no command None"),
        (b'{"command":[]}\n', r"no command []"),
        (b"x" * (MAX_REQUEST_BYTES + 1), "a request has at most"),
    ],
)
def test_nonsense_is_answered_and_the_server_goes_on(path, server, line, error):
    (answer,) = raw(path, line)
    assert answer["ok"] is False
    assert error in answer["error"]
    assert ask(path, "echo") == {"command": "echo"}


def test_a_client_that_does_not_read_disturbs_nobody(path, server):
    with socket.socket(socket.AF_UNIX) as lazy:
        lazy.connect(path)
        lazy.sendall(b'{"command":"long"}\n')
        sleep(0.05)
        assert ask(path, "echo") == {"command": "echo"}


def test_a_client_that_hangs_up_is_forgotten(path, server):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.sendall(b'{"command":"long"}\n')
        until(lambda: server._clients)
    until(lambda: not server._clients)


# ── the socket itself ──────────────────────────────────────────────────────────────────────────────────────────────────
def test_it_is_for_its_owner_only_and_its_directory_is_made(path, server):
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_it_goes_when_the_server_closes(path):
    server = ControlServer(path, {})
    server.close()
    assert not os.path.exists(path)


def test_what_a_dead_agent_left_is_replaced(path):
    dead = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import socket,os; os.makedirs({os.path.dirname(path)!r}); socket.socket(socket.AF_UNIX).bind({path!r})",
        ],
        check=True,
    )
    assert dead.returncode == 0
    assert os.path.exists(path)
    server = ControlServer(path, {"echo": dict})
    server.start()
    assert ask(path, "echo") == {"command": "echo"}
    server.close()


def test_a_live_agent_is_left_alone(path, server):
    with pytest.raises(UnixSocketError, match="another switch answers there; stop it, or give this one another name"):
        ControlServer(path, {})
    assert ask(path, "echo") == {"command": "echo"}


def test_a_socket_that_another_agent_has_made_since_is_not_taken_away(path):
    first = ControlServer(path, {})
    os.unlink(path)
    second = ControlServer(path, {})
    first.close()
    assert os.path.exists(path)
    second.close()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path):
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(UnixSocketError, match="is there already and is no socket"):
        ControlServer(str(tmp_path / "notes"), {})
    assert (tmp_path / "notes").read_text() == "mine"


def test_a_directory_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnixSocketError, match="cannot make the socket: "):
        ControlServer(str(tmp_path / "file" / "x.sock"), {})


# ── the client's own errors ────────────────────────────────────────────────────────────────────────────────────────────
def test_the_client_says_why_nobody_answers(tmp_path):
    with pytest.raises(ControlError, match=r"no such socket; is the switch running, with that name\?"):
        ControlClient(tmp_path / "none").request("show")
    dead = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(dead))
    with pytest.raises(ControlError, match="nobody answers; the switch that made it is gone"):
        ControlClient(dead).request("show")


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"220 mail\n", "what answers there is not an ofswitch agent"),
        (b"[]\n", "not an answer: "),
        (b"", "closed the connection"),
        (None, "no answer within 0.2 s"),
    ],
)
def test_the_client_says_what_is_wrong_with_an_answer(tmp_path, said, error):
    path = tmp_path / "odd.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        done = threading.Event()

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(1000)
                if said is None:
                    done.wait(60)
                elif said:
                    client.sendall(said)

        thread = threading.Thread(target=serve)
        thread.start()
        with ControlClient(path, timeout=0.2) as client, pytest.raises(ControlError, match=error):
            client.request("show")
        done.set()
        thread.join()


def test_the_client_needs_no_eventlet():
    script = "import sys, appliance.agent.client; sys.exit('eventlet' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], check=False).returncode == 0


def test_importing_the_agent_warns_of_nothing():
    script = "import appliance.agent.agent"
    result = subprocess.run(
        [sys.executable, "-W", "default", "-c", script], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    assert "ventlet" not in result.stderr

"""The commands: arguments, exit status, JSON, and which switch they ask."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from test_cli_tables import FLOW, SHOW, port

from appliance.cli import sockets
from appliance.cli.main import main

ANSWERS: dict[str, Any] = {
    "show": SHOW,
    "flows": {"total": 1, "flows": [FLOW]},
    "megaflows": {"total": 0, "megaflows": []},
    "ports": [port(1)],
}


def ofswitch(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), catch_exceptions=False)


@pytest.fixture
def switch(tmp_path: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """What answers as an agent does; its control socket, and the requests that came."""
    path = str(tmp_path / "edge.sock")
    requests: list[dict[str, Any]] = []
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen()

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rw") as file:
                for line in file:
                    requests.append(json.loads(line))
                    result = ANSWERS.get(requests[-1]["command"])
                    answer = (
                        {"ok": True, "result": result}
                        if requests[-1].get("table") != 99
                        else {"ok": False, "error": "no such table"}
                    )
                    file.write(json.dumps(answer) + "\n")
                    file.flush()

    thread = threading.Thread(target=serve)
    thread.start()
    yield path, requests
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


# ── asking ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("command", sorted(ANSWERS))
def test_json_is_the_answer_itself(switch: tuple[str, list[dict[str, Any]]], command: str) -> None:
    result = ofswitch(command, "--json", "--control-socket", switch[0])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == ANSWERS[command]
    assert switch[1] == [{"command": command}]


def test_tables_are_neither_cut_nor_wrapped_where_there_is_no_terminal(switch: tuple[str, list[dict[str, Any]]]) -> None:
    result = ofswitch("flows", "--control-socket", switch[0])
    assert result.exit_code == 0
    assert [line for line in result.stdout.splitlines() if "in_port=1" in line and "0x2a" in line]


def test_arguments_are_passed_on(switch: tuple[str, list[dict[str, Any]]]) -> None:
    assert ofswitch("flows", "--table", "3", "--limit", "5", "--control-socket", switch[0]).exit_code == 0
    assert ofswitch("megaflows", "--limit", "0", "--control-socket", switch[0]).exit_code == 0
    assert switch[1] == [{"command": "flows", "table": 3, "limit": 5}, {"command": "megaflows", "limit": 0}]


def test_a_refusal_is_told(switch: tuple[str, list[dict[str, Any]]]) -> None:
    result = ofswitch("flows", "--table", "99", "--control-socket", switch[0])
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "ofswitch: no such table\n")


def test_nobody_there(tmp_path: Path) -> None:
    result = ofswitch("show", "--control-socket", str(tmp_path / "nix.sock"))
    assert result.exit_code == 1
    assert "is the switch running" in result.stderr


def test_the_switch_is_found_by_name_or_because_it_is_the_only_one(
    switch: tuple[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    path = switch[0]
    assert sockets.find_socket(None, "/x/y.sock", str(tmp_path)) == "/x/y.sock"
    assert sockets.find_socket("other", None, str(tmp_path)) == f"{tmp_path}/other.sock"
    assert sockets.find_socket("edge", None) == "/run/ofswitch/edge.sock"
    assert sockets.find_socket(None, None, str(tmp_path)) == path
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead.sock"))
    assert sockets.find_socket(None, None, str(tmp_path)) == path, "what a dead switch left behind does not count"
    with socket.socket(socket.AF_UNIX) as second:
        second.bind(str(tmp_path / "second.sock"))
        second.listen()
        with pytest.raises(sockets.NoSwitch, match="several switches are running; name one: edge, second"):
            sockets.find_socket(None, None, str(tmp_path))
    with pytest.raises(sockets.NoSwitch, match="no switch is running"):
        sockets.find_socket(None, None, str(tmp_path / "nix"))


# ── check, version, usage ──────────────────────────────────────────────────────────────────────────────────────────────
def test_check_finds_nothing() -> None:
    result = ofswitch("check", "--port", "lo")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "the flags: no faults\n", "")
    assert json.loads(ofswitch("check", "--port", "lo", "--json").stdout) == {"ok": True, "faults": []}


def test_check_knows_a_lab() -> None:
    path = str(Path(__file__).parents[2] / "configs" / "lab.yaml")
    assert ofswitch("check", path).stdout == f"{path}: no faults\n"


def test_check_tells_every_fault(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("nam: x\nports: [nix0, lo]\n")
    result = ofswitch("check", str(path), "--controller", "udp:x")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "--controller: 'udp:x' is not a controller; write tcp:HOST or tcp:HOST:PORT (ssl: for TLS)",
        f"{path}:1:1: unknown key 'nam'; did you mean 'name'?",
        result.stderr.splitlines()[2],
        "ofswitch: 3 faults",
    ]
    assert result.stderr.splitlines()[2].startswith(f"{path}:2:9: there is no interface 'nix0'")
    answer = json.loads(ofswitch("check", str(path), "--json").stdout)
    assert answer["ok"] is False
    assert answer["faults"][0] == {"file": str(path), "line": 1, "column": 1, "text": "unknown key 'nam'; did you mean 'name'?"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], "the switch has no ports; name at least one: --port eth1"),
        (["run", "--port", "lo", "--fail-mode", "x"], "--fail-mode: 'x' is not a fail mode"),
        (["run", "--port", "lo", "--protocols", "OpenFlow13,OpenFlow15"], "--protocols: 'OpenFlow15' is not a protocol"),
        (["run", "--port", "lo", "--app", "nix.py"], "--app: there is no app 'nix.py'"),
        (["run", "--port", "lo", "--hook", "dpdk"], "--port: 'dpdk' is not a hook"),
        (["run", "nix.yaml"], "nix.yaml: cannot be read: No such file or directory"),
        (["lab", "nix.yaml"], "nix.yaml: cannot be read: No such file or directory"),
        (["run", "--max-megaflows", "x"], "'x' is not a valid integer"),
        (["flows", "--table", "255"], "255 is not in the range"),
        (["nonsense"], "No such command"),
    ],
)
def test_wrong_usage_is_status_2(arguments: list[str], words: str) -> None:
    result = ofswitch(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def test_version() -> None:
    lines = dict(line.split(None, 1) for line in ofswitch("version").stdout.splitlines())
    assert lines["OpenFlow"] == "1.3"
    assert lines["Python"] == ".".join(str(part) for part in sys.version_info[:3])
    assert set(json.loads(ofswitch("version", "--json").stdout)) == set(lines)


@pytest.mark.parametrize("arguments", [["--help"], ["version"], ["show", "--control-socket", "/nix"]])
def test_quick_commands_import_nothing_heavy(arguments: list[str]) -> None:
    """Start-up time is imports; pydantic alone costs a tenth of a second, the agent a whole one."""
    code = (
        "import sys\nfrom appliance.cli.main import main\n"
        f"try: main({arguments!r})\nexcept SystemExit: pass\n"
        "print(','.join(sorted({'pydantic', 'eventlet', 'bcc', 'os_ken', 'pyroute2', 'rich'} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout.splitlines()[-1] == ""

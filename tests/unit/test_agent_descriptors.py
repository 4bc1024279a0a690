"""An agent without file descriptors to take connections with: it waits for them, instead of asking as fast as it can."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from agent_support import free_port

from appliance.agent.accept import RETRY_SECONDS

WITHOUT_DESCRIPTORS = """
import json, logging, os, resource, socket, sys, time

from appliance.agent.connections import Connections
from appliance.agent.control import ControlServer
from appliance.agent.green import sleep
from appliance.config import ListenAddress


class Side:
    def message(self, event): pass
    def opened(self, *about): pass
    def closed(self, connection): pass
    def paused(self): pass


said = []
handler = logging.Handler()
handler.emit = lambda record: said.append(record.getMessage())
logging.getLogger("ofswitch").addHandler(handler)
logging.getLogger("ofswitch").setLevel(logging.INFO)

kind, path, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
if kind == "control":
    server = ControlServer(path, {"echo": dict})
    server.start()
    family, address, request = socket.AF_UNIX, path, b'{"command": "echo"}\\n'
else:
    server = Connections(Side(), frozenset({4}))
    server.listen(ListenAddress.model_validate(f"ptcp:{port}"))
    family, address, request = socket.AF_INET, ("127.0.0.1", port), b""
client = socket.socket(family)
tries, accept = 0, socket.socket.accept


def counting(listener):
    global tries
    tries += 1
    return accept(listener)


socket.socket.accept = counting
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
held = []
try:
    while True:
        held.append(os.dup(0))
except OSError:
    pass
begun = time.monotonic()
client.connect(address)
client.setblocking(False)
client.send(request)
while tries < 5:
    sleep(0.01)
seconds, tries_without = time.monotonic() - begun, tries
for fd in held:
    os.close(fd)
answer = b""
while not answer:
    sleep(0.01)
    try:
        answer = client.recv(1000)
    except BlockingIOError:
        pass
print(json.dumps([seconds, tries_without, tries, answer.hex(), said]))
"""


@pytest.mark.parametrize(("kind", "answer"), [("control", b'{"ok": true'), ("openflow", b"\x04\x00")])
def test_connections_wait_for_file_descriptors_without_being_asked_for_all_the_time(
    tmp_path: Path, kind: str, answer: bytes
) -> None:
    command = [sys.executable, "-c", WITHOUT_DESCRIPTORS, kind, str(tmp_path / "control.sock"), str(free_port())]
    result = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    seconds, tries, tries_in_all, answered, said = json.loads(result.stdout)
    assert tries <= seconds / RETRY_SECONDS + 1, "one at the beginning, and one after each pause"
    assert tries_in_all == tries + 1
    assert bytes.fromhex(answered).startswith(answer)
    assert ["Too many open files" in line for line in said] == [True, False], said
    assert said[-1].endswith("connections are taken again")

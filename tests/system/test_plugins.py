"""Plug-ins in the running switch, used by a Ryu app: real UDP is stamped, a SYN flood is held back, a match decides; a broken one
is left out; and a changed one is at work with the next agent.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.running_switch import RunningSwitch, running_switch
from support.waiting import SECONDS, until

from appliance.lab.testbed import Testbed

pytestmark = pytest.mark.root

APP = Path(__file__).parent / "apps" / "plugin_user.py"
RECORD = struct.Struct(">QII")
FIRST_BYTE = """
from appliance.model.plugin import Plugin, PluginMatch

PLUGIN = Plugin(id=9, match=PluginMatch(bits=8, at=0))
"""
FIRST_BYTE_C = """
#include "plugin.h"

static __always_inline u32 plugin_match(struct packet *p, struct __sk_buff *skb)
{
	u8 first = 0;

	if (has_layer(p, LAYER_UDP))
		l4_load(p, skb, 8, &first, 1);
	return first OTHERWISE;
}
"""


def write(folder: Path, source: str) -> None:
    (folder / "first_byte.py").write_text(FIRST_BYTE)
    (folder / "first_byte.c").write_text(source)
    (folder / "broken.py").write_text(
        "from appliance.model.plugin import Plugin, PluginAction\nPLUGIN = Plugin(30, PluginAction())\n"
    )
    (folder / "broken.c").write_text('#include "plugin.h"\nint nonsense')


def flags(folder: Path) -> tuple[str, ...]:
    return ("--plugin", "timestamp", "--plugin", "syn_guard", "--plugin", f"{folder}/", "--app", str(APP))


@pytest.fixture(scope="module")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSwitch]:
    folder, plugins = tmp_path_factory.mktemp("switch"), tmp_path_factory.mktemp("plugins")
    write(plugins, FIRST_BYTE_C.replace("OTHERWISE", ""))
    with Testbed.of(2) as bed, running_switch(bed, folder, *flags(plugins), listen=False) as running:
        until(lambda: "REFUSED" in running.log, "the app")
        yield running
        assert running.control.request("show")["faults"] == 0, running.log


def plugins(switch: RunningSwitch) -> dict[str, dict[str, Any]]:
    return {plugin["name"]: plugin for plugin in switch.control.request("plugins")}


def receiver(bed: Testbed, port: int, family: int = 4) -> socket.socket:
    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        made.bind((bed["h2"].address(family), port))
        made.settimeout(SECONDS)
        return made

    return bed.inside("h2", make)


def sender(bed: Testbed, port: int, family: int = 4) -> socket.socket:
    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        made.connect((bed["h2"].address(family), port))
        return made

    return bed.inside("h1", make)


def test_datagrams_are_stamped_on_their_way(switch: RunningSwitch) -> None:
    """The first by the slow path, those after the megaflow was made by the fast path; h2's kernel checks the checksums."""
    before = plugins(switch)["timestamp"]["counters"]
    numbers = itertools.count()
    with receiver(switch.bed, 4000) as sink, sender(switch.bed, 4000) as source:

        def stamped() -> bool:
            start = struct.pack(">Q", next(numbers))
            moment = time.clock_gettime_ns(time.CLOCK_TAI)
            source.send(start + bytes(40))
            data = sink.recv(2048)
            stamped, hop, port = RECORD.unpack_from(data, 8)
            assert moment <= stamped <= time.clock_gettime_ns(time.CLOCK_TAI)
            return data == start + RECORD.pack(stamped, 0x11, 1) + bytes(24) and (hop, port) == (0x11, 1)

        switch.until_fast(stamped)
        tiers = switch.packets()
        assert all(stamped() for _ in range(50))
        source.send(b"short")
        assert sink.recv(2048) == b"short"
    after, tiers_after = plugins(switch)["timestamp"]["counters"], switch.packets()
    assert after["stamped"] - before["stamped"] == next(numbers)
    assert after["no_room"] - before["no_room"] == 1
    assert tiers_after["tc"] - tiers["tc"] >= 50


def test_a_syn_flood_is_held_back_and_connections_go_on(switch: RunningSwitch) -> None:
    """20 connections at once from h1's prefix, then one a second; those that stand are not touched."""
    bed = switch.bed
    listener = bed.inside("h2", lambda: socket.create_server((bed["h2"].address4, 5001), backlog=200))
    with listener:
        first = bed.inside("h1", lambda: socket.create_connection((bed["h2"].address4, 5001), SECONDS))
        accepted, _ = listener.accept()
        flood = [bed.inside("h1", lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)) for _ in range(60)]
        start = time.monotonic()
        for opened in flood:
            opened.setblocking(False)
            opened.connect_ex((bed["h2"].address4, 5001))
        counters = until(lambda: all_seen(switch, 61), "all SYNs at the guard")
        elapsed = time.monotonic() - start
        first.sendall(b"still here")
        assert accepted.recv(100) == b"still here"
        for opened in (*flood, first, accepted):
            opened.close()
    assert 19 <= counters["passed"] <= 21 + elapsed, "h1's first one too"
    assert counters["sources"] == 1
    assert switch.control.request("show")["drops"]["plugin"] > 0


def all_seen(switch: RunningSwitch, number: int) -> dict[str, int] | None:
    """The guard's counters, once it has seen so many packets."""
    counters: dict[str, int] = plugins(switch)["syn_guard"]["counters"]
    return counters if counters["passed"] + counters["dropped"] >= number else None


def test_a_match_decides(switch: RunningSwitch) -> None:
    with receiver(switch.bed, 4001) as sink, sender(switch.bed, 4001) as source:
        for word in (b"x-ray", b"yes", b"xyz", b"axe", b"x"):
            source.send(word)
        assert [sink.recv(100) for _ in range(2)] == [b"yes", b"axe"]
        sink.settimeout(0.3)
        with pytest.raises(TimeoutError):
            sink.recv(100)

    def dropping() -> bool:
        shown = switch.control.request("megaflows")["megaflows"]
        return any("plugin_bits" in megaflow["match_text"] and megaflow["actions"] == "drop" for megaflow in shown)

    until(dropping, "a megaflow that drops")


def test_what_is_told(switch: RunningSwitch) -> None:
    """By the app, which reads its own entries back; by `ofswitch plugins` and `ofswitch flows`; and in the log."""
    log = until(lambda: switch.log if switch.log.count("ENTRY ") >= 5 else "", "flow statistics")
    assert "ENTRY 3 plugin_bits=(120, 255) calls=[]" in log
    assert "ENTRY 2 plugin_bits=None calls=['0001']" in log
    assert "ENTRY 2 plugin_bits=None calls=['0002']" in log
    assert "REFUSED type=2 code=3" in log, "the plug-in that was left out is an unknown type of action"
    assert re.search(r"plug-in broken is left out: cannot compile \S*broken\.c", log)
    states = {name: (plugin["id"], plugin["state"]) for name, plugin in plugins(switch).items()}
    assert states == {
        "timestamp": (1, "works"),
        "syn_guard": (2, "works"),
        "first_byte": (9, "works"),
        "broken": (30, "left out"),
    }
    shown = subprocess.run(
        [sys.executable, "-m", "appliance.cli.main", "plugins", "--control-socket", str(switch.folder / "switch.sock")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert re.search(r"timestamp\s+1\s+works\s+hop/4 offset/2\s+stamped \d+, no_room \d+", shown), shown
    assert "broken: cannot compile" in shown
    texts = [flow["match_text"] + " " + flow["instructions"] for flow in switch.control.request("flows")["flows"]]
    assert any("plugin:1(000000110008000000000000)" in text for text in texts), texts
    assert any("plugin_bits=0x00000078/0x000000ff" in text for text in texts), texts


def test_a_changed_plugin_is_at_work_with_the_next_agent(tmp_path: Path) -> None:
    """The old agent is killed: its plug-in goes on; the new agent's takes over."""
    folder, plugins = tmp_path / "switch", tmp_path / "plugins"
    folder.mkdir()
    plugins.mkdir()
    write(plugins, FIRST_BYTE_C.replace("OTHERWISE", ""))

    def arrive(source: socket.socket, sink: socket.socket, seconds: float = SECONDS) -> set[bytes]:
        """The first to come within that time, and what comes with it."""
        for word in (b"x", b"y"):
            source.send(word)
        found = set()
        sink.settimeout(seconds)
        while True:
            try:
                found.add(sink.recv(10))
            except TimeoutError:
                return found
            sink.settimeout(0.3)

    with Testbed.of(2) as bed, receiver(bed, 4001) as sink, sender(bed, 4001) as source:
        with running_switch(bed, folder, *flags(plugins), listen=False) as switch:
            until(lambda: "REFUSED" in switch.log, "the app")
            switch.until_fast(lambda: arrive(source, sink) == {b"y"})
            os.kill(switch.process.pid, signal.SIGKILL)
            switch.process.wait()
            assert arrive(source, sink) == {b"y"}, "nobody is there, and the plug-in works"
        write(plugins, FIRST_BYTE_C.replace("OTHERWISE", "== 'y' ? 'x' : 0"))
        with running_switch(bed, folder, *flags(plugins), listen=False) as switch:
            until(lambda: arrive(source, sink, 0.5) == {b"x"}, "the new plug-in, once the new agent has its flow entries")

"""Programs out of the cache are the programs that were compiled, and the switch never has the compiler in its memory."""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from appliance.datapath import build as builder
from appliance.datapath import loader
from appliance.datapath.build import amalgamate, build
from appliance.datapath.index import random_constants
from appliance.datapath.loader import Programs, Sizes
from appliance.datapath.programs import BPF_OBJ_GET_INFO_BY_FD, bpf

pytestmark = pytest.mark.root

SIZES = Sizes(megaflows=256, upcall_pages=16)
CONSTANTS = random_constants()
TAG_OFFSET, TAG_BYTES = 8, 8


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one."""
    directory = tmp_path / "cache"
    monkeypatch.setenv("CACHE_DIRECTORY", str(directory))
    return directory


def without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(what: str, request: bytes) -> tuple[bytes, str]:
        raise AssertionError(f"{what} is compiled")

    monkeypatch.setattr(builder, "_compile", none)


def tags(programs: Programs) -> list[bytes]:
    """What the kernel knows each loaded program by: a hash of its instructions, whatever maps are in them."""
    found = []
    for fd in programs._own_fds:
        info = ctypes.create_string_buffer(TAG_OFFSET + TAG_BYTES)
        bpf(BPF_OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, len(info), ctypes.addressof(info)))
        found.append(info.raw[TAG_OFFSET:])
    return found


def test_cold_and_warm_are_the_same(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Programs(SIZES, CONSTANTS)) as cold:
        before = tags(cold)
        assert len(set(before)) > 10
    (file,) = cache.iterdir()
    without_compiler(monkeypatch)
    with closing(Programs(SIZES, CONSTANTS)) as warm:
        assert warm._code == cold._code
        assert tags(warm) == before
    with closing(Programs(SIZES, random_constants())) as other:
        assert other._code == cold._code
        assert tags(other) != before
    assert list(cache.iterdir()) == [file]


def test_the_compiler_makes_nothing_of_the_constants(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Constants put in afterwards are those that it would have compiled."""
    with closing(Programs(SIZES, CONSTANTS)) as linked:
        pass
    monkeypatch.setattr(loader, "placeholder_constants", lambda count: list(CONSTANTS[:count]))
    with closing(Programs(SIZES, CONSTANTS)) as compiled:
        pass
    maps, tables = dict.fromkeys(compiled._code.maps, 5), range(100)
    assert linked._code.maps == compiled._code.maps
    assert linked._code.programs.keys() == compiled._code.programs.keys()
    for name, code in compiled._code.programs.items():
        assert code.linked(maps, tables, CONSTANTS) == linked._code.programs[name].linked(maps, tables, CONSTANTS), name


def test_a_changed_source_is_compiled_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "int first(struct __sk_buff *skb) { return 1; }"
    one = build("it", text, [])
    other = build("it", text.replace("1", "2"), [])
    assert one.programs["first"].raw != other.programs["first"].raw
    assert len(list(cache.iterdir())) == 2
    without_compiler(monkeypatch)
    assert build("it", text, []) == one


def test_two_that_start_at_once(cache: Path) -> None:
    text = amalgamate("plugins/timestamp.c", "plugin_entry.h")
    with ThreadPoolExecutor(3) as threads:
        made = list(threads.map(lambda _: build("it", text, ["-DCPUS=1", "-DHAS_ACTION"]), range(3)))
    assert made[0] == made[1] == made[2]
    assert len(list(cache.iterdir())) == 1


def test_llvm_stays_out_of_the_switch(cache: Path) -> None:
    script = """
import sys
from appliance.datapath.bpf import BpfDatapath
from appliance.datapath.loader import Sizes
for _ in range(2):  # cold, warm
    BpfDatapath(Sizes(megaflows=256, upcall_pages=16)).close()
    print("bcc" in sys.modules, "libLLVM" in open("/proc/self/maps").read(), "libbcc" in open("/proc/self/maps").read())
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=200)
    assert (done.stdout, done.stderr) == ("False False False\n" * 2, "")
    assert len(list(cache.iterdir())) == 1

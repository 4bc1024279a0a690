"""Bytecode, linked and kept on disk: what is used again is what was kept, and whatever else lies there is as good as absent."""

from __future__ import annotations

import base64
import json
import logging
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from appliance.datapath import build as builder
from appliance.datapath.build import build
from appliance.datapath.bytecode import Bytecode
from appliance.datapath.bytecode_cache import BytecodeCache, default_directory
from appliance.datapath.driver import DatapathError

KEY = "0123abcd"
LOAD_64, EXIT = 0x18, 0x95
MAP, TABLE = 1, 2


def load(source: int, low: int, high: int = 0) -> bytes:
    return struct.pack("=BBhI", LOAD_64, source << 4 | 1, 0, low) + struct.pack("=BBhI", 0, 0, 0, high)


def end() -> bytes:
    return struct.pack("=BBhI", EXIT, 0, 0, 0)


def kept(**changes: Any) -> bytes:
    """As the compiler's process answers."""
    code = load(MAP, 99) + load(TABLE, 1, 8) + load(0, 7, 7) + load(MAP, 98) + end()
    relocations = [[0, "map", "ports"], [16, "table", 1], [32, "constant", 0], [48, "map", "drops"]]
    shape = {"kind": 2, "key_bytes": 4, "value_bytes": 8, "entries": 1, "flags": 0}
    tools = [[__file__, os.stat(__file__).st_size, os.stat(__file__).st_mtime_ns]]
    whole = {
        "maps": {"ports": shape, "drops": shape},
        "programs": {"main": {"code": base64.b64encode(code).decode(), "relocations": relocations}},
        "tools": tools,
    }
    return json.dumps(whole | changes).encode()


@pytest.fixture
def cache(tmp_path: Path) -> BytecodeCache:
    return BytecodeCache(tmp_path / "cache")


def test_linking() -> None:
    code = Bytecode.read(kept()).programs["main"]
    linked = code.linked({"ports": 11, "drops": 12}, [20, 21], [0xFEDCBA9876543210])
    assert linked == load(MAP, 11) + load(TABLE, 21, 8) + load(0, 0x76543210, 0xFEDCBA98) + load(MAP, 12) + end()
    assert code.linked({"ports": 1, "drops": 1}, [2, 2], [3]) != linked  # nothing of one link stays for the next


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"null", b'{"maps": {}, "programs": {"x": {}}, "tools": []}', kept()[:-5]])
def test_what_is_no_bytecode_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Bytecode.read(text)


def test_what_is_kept_is_found_again(cache: BytecodeCache) -> None:
    assert cache.load(KEY) is None
    cache.store(KEY, kept())
    assert cache.load(KEY) == Bytecode.read(kept())
    assert cache.load(KEY + "0") is None
    assert [path.name for path in cache.directory.iterdir()] == [cache.path(KEY).name]


def _flipped(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _emptied(path: Path) -> None:
    path.write_bytes(b"")


def _anothers(path: Path) -> None:
    """A good file, of another key."""
    other = BytecodeCache(path.parent)
    other.store("f" * 8, kept())
    os.replace(other.path("f" * 8), path)


def _writable(path: Path) -> None:
    path.chmod(0o664)


def _in_a_writable_directory(path: Path) -> None:
    path.parent.chmod(0o777)


def _a_link(path: Path) -> None:
    real = path.with_name("real")
    path.rename(real)
    path.symlink_to(real)


def _a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


SPOILT = [_flipped, _cut, _emptied, _anothers, _writable, _in_a_writable_directory, _a_link, _a_directory]


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__.strip("_"))
def test_what_is_spoilt_is_not_used_and_the_log_says_so(cache: BytecodeCache, spoil: Any, caplog: pytest.LogCaptureFixture) -> None:
    cache.store(KEY, kept())
    spoil(cache.path(KEY))
    with caplog.at_level(logging.WARNING, "ofswitch.bytecode"):
        assert cache.load(KEY) is None
    assert f"{cache.path(KEY)} is not used" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("what", ["file", "directory"])
def test_what_is_somebody_elses_is_not_used(cache: BytecodeCache, what: str, caplog: pytest.LogCaptureFixture) -> None:
    cache.store(KEY, kept())
    os.chown(cache.path(KEY) if what == "file" else cache.directory, 65534, -1)
    assert cache.load(KEY) is None
    assert "it is user 65534's" in caplog.text


def test_another_compiler_is_another_bytecode(cache: BytecodeCache, tmp_path: Path) -> None:
    library = tmp_path / "libLLVM.so"
    library.write_text("one")
    status = library.stat()
    cache.store(KEY, kept(tools=[[str(library), status.st_size, status.st_mtime_ns]]))
    assert cache.load(KEY) is not None
    library.write_text("two, longer")
    assert cache.load(KEY) is None
    library.unlink()
    assert cache.load(KEY) is None


@pytest.mark.parametrize("where", ["/proc/ofswitch", "{tmp_path}/file", "{tmp_path}/file/cache"])
def test_a_directory_that_cannot_be(where: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    cache = BytecodeCache(Path(where.format(tmp_path=tmp_path)))
    with caplog.at_level(logging.INFO, "ofswitch.bytecode"):
        cache.store(KEY, kept())
        assert cache.load(KEY) is None
    assert f"nothing is kept in {cache.directory}" in caplog.text


def test_what_was_not_used_for_long_goes(cache: BytecodeCache) -> None:
    for number in range(40):
        cache.store(f"{number:08}", kept())
        os.utime(cache.path(f"{number:08}"), (number, number))
    assert cache.load(f"{9:08}") is not None  # which is used now, and so stays
    cache.store(KEY, kept())
    files = {path.stem for path in cache.directory.iterdir()}
    assert len(files) == 32
    assert {KEY, f"{9:08}"} <= files
    assert f"{8:08}" not in files


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CACHE_DIRECTORY", f"{tmp_path}/of-systemd:/other")
    assert default_directory() == tmp_path / "of-systemd"
    monkeypatch.delenv("CACHE_DIRECTORY")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert default_directory() == tmp_path / "ofswitch"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which XDG says is to be ignored
    assert default_directory() == Path.home() / ".cache" / "ofswitch"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_directory() == Path("/var/cache/ofswitch")


# ── what is compiled when: the compiler's process is a stand-in here, and the real one in tests/bpf/test_bpf_bytecode.py ────
@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file that has a line for each time something was compiled."""
    log, process = tmp_path / "log", tmp_path / "process.py"
    process.write_text(
        f"import sys\nsys.stdin.read()\nopen({str(log)!r}, 'a').write('x\\n')\nsys.stdout.write({kept().decode()!r})"
    )
    log.write_text("")
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path / "cache"))
    monkeypatch.setattr(builder, "_COMPILER", process)
    return log


def times(log: Path) -> int:
    return len(log.read_text().splitlines())


def test_only_what_has_changed_is_compiled(compiled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build("it", "int x;", ["-DA=1"], [5])
    assert build("it by another name", "int x;", ["-DA=1"], [5]) == first
    assert times(compiled) == 1
    for text, flags, constants in (("int y;", ["-DA=1"], [5]), ("int x;", ["-DA=2"], [5]), ("int x;", ["-DA=1"], [6])):
        build("it", text, flags, constants)
    assert times(compiled) == 4
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "host", "9.9.9", "#1", "x86_64")))
    build("it", "int x;", ["-DA=1"], [5])
    assert times(compiled) == 5


def test_a_source_with_headers_of_the_system_is_always_compiled(compiled: Path) -> None:
    """Nobody hears of it when they change."""
    for _ in range(2):
        build("it", "#include <netinet/in.h>\nint x;", [])
    assert times(compiled) == 2
    for _ in range(2):
        build("it", "#include <linux/types.h>\nint x;", [])
    assert times(compiled) == 3


def test_damage_is_mended(compiled: Path) -> None:
    first = build("it", "int x;", [])
    (file,) = default_directory().iterdir()
    _flipped(file)
    assert build("it", "int x;", []) == first
    assert build("it", "int x;", []) == first
    assert times(compiled) == 2


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            r"cannot compile it: the compiler's process ended with status -9",
        ),
        ("import sys; sys.exit('no room')", r"ended with status 1\n  no room"),
        ("print('{}')", r"cannot compile it: no bytecode"),
        ("print('')", r"cannot compile it: no bytecode"),
        ('print(\'{"error": "because"}\')', r"cannot compile it: because"),
    ],
)
def test_a_compiler_that_fails(script: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    process = tmp_path / "process.py"
    process.write_text(f"import sys\nsys.stdin.read()\n{script}")
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path / "cache"))
    monkeypatch.setattr(builder, "_COMPILER", process)
    with pytest.raises(DatapathError, match=said):
        build("it", "int x;", [])
    assert not default_directory().exists()

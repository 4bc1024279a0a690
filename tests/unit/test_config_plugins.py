"""Plug-ins are found by name or in folders; what is wrong with one is told, and does not touch the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.config import ConfigError, dump, find_plugins, load
from appliance.model.plugin import ArgumentError, Plugin, PluginAction, call_of, read_arguments

HEAD = "from appliance.model.plugin import Argument, Plugin, PluginAction, PluginMatch\n"
ACTION = "action=PluginAction()"


def make(folder: Path, name: str, declaration: str, *, source: bool = True) -> None:
    (folder / f"{name}.py").write_text(HEAD + declaration)
    if source:
        (folder / f"{name}.c").write_text('#include "plugin.h"\n')


def faults(folder: Path) -> dict[str, str]:
    return {file.name: file.fault for file in find_plugins([f"{folder}/"])}


def test_shipped_ones_are_right_and_in_the_order_of_their_ids() -> None:
    found = find_plugins(["syn_guard", "timestamp", "syn_guard"])
    assert [(file.name, file.fault, file.plugin and file.plugin.id) for file in found] == [
        ("timestamp", "", 1),
        ("syn_guard", "", 2),
    ]
    assert all(Path(file.source).is_file() for file in found)


def test_a_folder(tmp_path: Path) -> None:
    make(tmp_path, "one", f"PLUGIN = Plugin(id=9, {ACTION})")
    make(tmp_path, "two", "PLUGIN = Plugin(id=3, match=PluginMatch(bits=2, at=30))")
    make(tmp_path, "helper", "", source=False)
    assert faults(tmp_path) == {"two": "", "one": ""}


@pytest.mark.parametrize(
    ("declaration", "fault"),
    [
        ("PLUGIN = 5", "{path}: it does not say PLUGIN = Plugin(...)"),
        ("\n1 / 0", "{path}:3: ZeroDivisionError: division by zero"),
        ("PLUGIN = Plugin(", "{path}:2: SyntaxError: '(' was never closed"),
        (f"PLUGIN = Plugin(id=32, {ACTION})", "{path}: id 32 is not 1 to 31"),
        ("PLUGIN = Plugin(id=1)", "{path}: neither an action nor a match"),
        (
            "PLUGIN = Plugin(id=1, action=PluginAction((Argument('a', 8), Argument('b', 5))))",
            "{path}: more than 12 bytes of arguments",
        ),
        ("PLUGIN = Plugin(id=1, match=PluginMatch(bits=2, at=31))", "{path}: its match is not within 32 bits"),
        (f"PLUGIN = Plugin(id=1, {ACTION}, counters=('a',) * 17)", "{path}: more than 16 counters"),
        (f"PLUGIN = Plugin(id=2, {ACTION})", "plug-in good has its id, 2"),
        ("PLUGIN = Plugin(id=7, match=PluginMatch(bits=9, at=0))", "plug-in good has bits of its match"),
        (
            "PLUGIN = Plugin(id=7, action=PluginAction(writes=('eth_dts',)))",
            "{path}: 'eth_dts' is no field; did you mean 'eth_dst'?",
        ),
    ],
)
def test_faults_of_one(tmp_path: Path, declaration: str, fault: str) -> None:
    make(tmp_path, "good", f"PLUGIN = Plugin(id=2, {ACTION}, match=PluginMatch(bits=1, at=8))")
    make(tmp_path, "wrong", declaration)
    assert faults(tmp_path) == {"good": "", "wrong": fault.format(path=tmp_path / "wrong.py")}


def test_names_that_lead_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "switch.yaml"
    path.write_text("ports: [eth1]\nplugins: [timestmp, nowhere/, 5, timestamp]")
    with pytest.raises(ConfigError) as raised:
        load(str(path))
    assert [str(fault) for fault in raised.value.faults] == [
        f"{path}:2:11: there is no plug-in 'timestmp'; did you mean 'timestamp'?; a folder's path has a slash",
        f"{path}:2:21: there is no plug-in (NAME.py with NAME.c beside it) in {tmp_path}/nowhere",
        f"{path}:2:31: 'plugins' must be text, not a whole number (5)",
    ]
    with pytest.raises(ConfigError, match=r"--plugin: there is no plug-in 'x'; it may be: syn_guard, timestamp"):
        load(overrides={"ports": ["eth1"], "plugins": ["x"]})


def test_a_folder_is_looked_for_from_the_configurations(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    make(tmp_path / "mine", "one", f"PLUGIN = Plugin(id=9, {ACTION})")
    path = tmp_path / "switch.yaml"
    path.write_text("ports: [eth1]\nplugins: [syn_guard, mine/]")
    config = load(str(path))
    assert config.plugins == ("syn_guard", f"{tmp_path}/mine/")
    path.write_text(dump(config))
    assert load(str(path)) == config
    assert [file.name for file in find_plugins(config.plugins)] == ["syn_guard", "one"]


def test_arguments_of_the_shipped_ones() -> None:
    plugins = {file.name: file.plugin for file in find_plugins(["timestamp", "syn_guard"])}

    def read(name: str, raw: str) -> dict[str, int]:
        plugin = plugins[name]
        assert isinstance(plugin, Plugin)
        assert isinstance(plugin.action, PluginAction)
        _, arguments = call_of(bytes(4) + bytes.fromhex(raw))
        return read_arguments(plugin.action, arguments)

    assert read("timestamp", "00000007 0010 0000") == {"hop": 7, "offset": 16}
    assert read("syn_guard", "000003e8 0064 18 40") == {"rate": 1000, "burst": 100, "prefix4": 24, "prefix6": 64}
    for name, raw in (
        ("timestamp", "00000007 0011 0000"),
        ("timestamp", "00000007 0010 0001"),
        ("syn_guard", "00000000 0064 18 40"),
        ("syn_guard", "00000001 0000 18 40"),
        ("syn_guard", "00000001 0001 21 40"),
        ("syn_guard", "00000001 0001 18 81"),
    ):
        with pytest.raises(ArgumentError):
            read(name, raw)

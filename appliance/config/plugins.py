"""Finding plug-ins: by the name of a shipped one, or all that are in a folder. A plug-in is NAME.py beside NAME.c.

Invariant: what is wrong with a plug-in keeps no other from working.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from appliance.config.faults import did_you_mean
from appliance.model.fields import BY_NAME
from appliance.model.plugin import Plugin, PluginFile

SHIPPED = Path(__file__).resolve().parents[2] / "bpf_prog" / "plugins"


def locate(name: str, directory: str = "") -> str:
    """The name of a shipped one as it is, or a folder's path, looked for from ``directory``. Raises ValueError if it is neither."""
    if "/" in name:
        path = os.path.join(os.path.normpath(os.path.join(directory, name)), "")
        if not _in(Path(path)):
            raise ValueError(f"there is no plug-in (NAME.py with NAME.c beside it) in {os.path.abspath(path)}")
        return path
    shipped = [path.stem for path in _in(SHIPPED)]
    if name not in shipped:
        raise ValueError(f"there is no plug-in {name!r}{did_you_mean(name, shipped)}; a folder's path has a slash")
    return name


def find(names: Iterable[str]) -> tuple[PluginFile, ...]:
    """Those that ``locate`` found, in the order of their ids; those without one last."""
    declarations: dict[Path, None] = {}
    for name in names:
        declarations |= dict.fromkeys(_in(Path(name)) if "/" in name else [SHIPPED / f"{name}.py"])
    return _without_conflicts(sorted((_read(path) for path in declarations), key=_order))


def _in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.py") if path.with_suffix(".c").is_file())


def _order(file: PluginFile) -> tuple[float, str]:
    return (file.plugin.id if file.plugin is not None else float("inf"), file.name)


def _read(path: Path) -> PluginFile:
    source = str(path.with_suffix(".c").resolve())
    module = ModuleType(f"ofswitch_plugin_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # as an import would have it; dataclasses look there
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
        plugin = module.__dict__.get("PLUGIN")
        if not isinstance(plugin, Plugin):
            return PluginFile(path.stem, source, None, f"{path}: it does not say PLUGIN = Plugin(...)")
        faults = plugin.faults() + _unknown_fields(plugin)
    except SyntaxError as error:
        return PluginFile(path.stem, source, None, f"{path}:{error.lineno}: SyntaxError: {error.msg}")
    except Exception as error:  # whatever a user's file may do
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        return PluginFile(path.stem, source, None, f"{path}:{lines[-1] if lines else 0}: {type(error).__name__}: {error}")
    if faults:
        return PluginFile(path.stem, source, None, f"{path}: {'; '.join(faults)}")
    return PluginFile(path.stem, source, plugin)


def _unknown_fields(plugin: Plugin) -> list[str]:
    names = plugin.action.writes if plugin.action is not None else ()
    return [f"{name!r} is no field{did_you_mean(name, BY_NAME)}" for name in names if name not in BY_NAME]


def _without_conflicts(files: list[PluginFile]) -> tuple[PluginFile, ...]:
    """Of two that want the same id or the same bits of a match, the second is at fault."""
    kept: list[PluginFile] = []
    for file in files:
        plugin, fault = file.plugin, ""
        for other in kept if plugin is not None else ():
            if other.plugin is None or plugin is None:
                continue
            if other.plugin.id == plugin.id:
                fault = f"plug-in {other.name} has its id, {plugin.id}"
            elif other.plugin.match and plugin.match and other.plugin.match.mask & plugin.match.mask:
                fault = f"plug-in {other.name} has bits of its match"
        kept.append(replace(file, plugin=None, fault=fault) if fault else file)
    return tuple(kept)

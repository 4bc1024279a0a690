"""``import ryu`` gives os-ken, so that Ryu's apps run unmodified where stock Ryu is absent.

Invariant: ``ryu.x.y`` and ``os_ken.x.y`` are one module object, never two copies: apps of either name share one registry of
apps and of events.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

RYU = "ryu"
OS_KEN = "os_ken"

_RENAMED = {
    # os-ken module: (Ryu's name, os-ken's name) of what has "Ryu" in its name. In this order: app_manager must come first of all.
    "os_ken.base.app_manager": ("RyuApp", "OSKenApp"),
    "os_ken.exception": ("RyuException", "OSKenException"),
}


class _AliasLoader(Loader):
    """Gives the os-ken module itself; its own spec, which the import system replaces meanwhile, is put back."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(OS_KEN + spec.name.removeprefix(RYU))
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


class _AliasFinder(MetaPathFinder):
    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != RYU and not fullname.startswith(RYU + "."):
            return None
        source = importlib.util.find_spec(OS_KEN + fullname.removeprefix(RYU))
        if source is None:
            return None
        return ModuleSpec(fullname, _AliasLoader(), is_package=source.submodule_search_locations is not None)


def install(app_directories: Sequence[str] = ()) -> None:
    """Let ``ryu`` be os-ken in this process, unless Ryu itself is installed. Imports os-ken, which reads OSKEN_HUB_TYPE then.

    os-ken has hardly any of the apps that Ryu came with, on which others build (``from ryu.app import simple_switch_13``): those
    are also looked for in ``app_directories``.
    """
    if importlib.util.find_spec(RYU) is not None:
        return
    for name, (ryu_name, os_ken_name) in _RENAMED.items():
        module = importlib.import_module(name)
        setattr(module, ryu_name, getattr(module, os_ken_name))
    import eventlet.wsgi  # only now, and for the sake of os-ken, which has just imported eventlet

    if not hasattr(eventlet.wsgi, "ALREADY_HANDLED"):
        eventlet.wsgi.ALREADY_HANDLED = []  # ryu.app.wsgi imports it; what it stood for is told to eventlet in another way now
    sys.meta_path.insert(0, _AliasFinder())  # first: by its path, the file of ryu.base.x would be found and loaded twice
    importlib.import_module(f"{OS_KEN}.app").__path__.extend(dict.fromkeys(app_directories))

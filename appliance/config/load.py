"""From a file and flags to a ``Config``, or to every fault in them at once.

Invariant: nothing of the system is touched but the files named; which interfaces exist is told by the caller.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from appliance.config.addresses import TlsFiles
from appliance.config.document import Document, NodePath, parse, to_text
from appliance.config.faults import ConfigError, Fault, did_you_mean, one_of
from appliance.config.lab import Lab, LabHost
from appliance.config.model import Config, IntegratedController
from appliance.config.plugins import locate
from appliance.config.port import PortSpec, QueueSpec
from appliance.config.tunnel import TunnelOptions

LAB_KEY = "lab"
_PRODUCT = str(Path(__file__).resolve().parents[2])
_SECTIONS: dict[str, type[BaseModel]] = {
    "": Config,
    "ports": PortSpec,
    "ports.queues": QueueSpec,
    "ports.options": TunnelOptions,
    "integrated_controller": IntegratedController,
    "tls": TlsFiles,
    LAB_KEY: Lab,
    f"{LAB_KEY}.hosts": LabHost,
}
_KIND = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    dict: "a mapping (key: value)",
    tuple: "a list",
    type(None): "nothing",
}
_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "model_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)",
}

KnownInterfaces = Callable[[], Collection[str]]


@dataclass(frozen=True, slots=True)
class LabFile:
    """What ``ofswitch lab`` reads: the hosts, and the switch, whose ports are not in the file because the lab makes them."""

    lab: Lab
    config: Config


def load(
    path: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    known_interfaces: KnownInterfaces | None = None,
) -> Config:
    """The configuration in ``path`` with the flags in ``overrides`` in place of its keys. Raises ConfigError.

    ``overrides`` has the keys of ``Config`` (None: not given), and ``hook`` for every port. ``known_interfaces`` gives the names
    of those that exist; without it, that is not checked.
    """
    reader = _Reader(path, overrides or {})
    if LAB_KEY in reader.values:
        del reader.values[LAB_KEY]
        text = "'lab' is for `ofswitch lab`, which makes its own ports; a switch's own file has 'ports'"
        reader.faults.append(reader.document.fault((LAB_KEY,), text, key=True))
    else:
        reader.check_ports(known_interfaces)
    return reader.config()


def load_lab(path: str) -> LabFile:
    """A lab's file. Raises ConfigError. Without ``local`` there is no port LOCAL: a lab leaves the machine's own network alone."""
    reader = _Reader(path, {})
    reader.values.setdefault("local", False)
    lab = reader.lab()
    if "ports" in reader.values:
        reader.faults.append(
            reader.document.fault(("ports",), "a lab makes its own ports, one for each of lab.hosts; take this out", key=True)
        )
        del reader.values["ports"]
    config = reader.config()
    if lab is None:
        raise ConfigError(reader.faults)
    return LabFile(lab, config)


def is_lab(path: str) -> bool:
    """Whether a file is meant for ``load_lab``: it has a ``lab`` key. A file that cannot be read or is not YAML is not."""
    try:
        return LAB_KEY in _Reader(path, {}).values
    except ConfigError:
        return False


def dump(config: Config) -> str:
    """YAML that ``load`` reads back as the same ``Config``."""
    values: dict[str, Any] = {
        "name": config.name,
        "fail_mode": config.fail_mode,
        "protocols": list(config.protocols),
        "ports": [_port(port) for port in config.ports],
        "controllers": [
            {"target": str(item), "auxiliary": item.auxiliary} if item.auxiliary else str(item) for item in config.controllers
        ],
        "listen": [str(item) for item in config.listen],
        "control_socket": config.control_socket,
        "max_megaflows": config.max_megaflows,
        "big_tcp": config.big_tcp,
    }
    if config.plugins:
        values["plugins"] = list(config.plugins)
    if config.local is not None:
        values["local"] = config.local or "none"
    if config.datapath_id is not None:
        values["datapath_id"] = f"{config.datapath_id:016x}"
    if config.integrated_controller is not None:
        values["integrated_controller"] = {"apps": list(config.integrated_controller.apps)}
    if config.tls is not None:
        values["tls"] = config.tls.model_dump()
    return to_text(values)


def _port(port: PortSpec) -> dict[str, Any]:
    values = port.model_dump(exclude={"type", "options"})
    if port.tunnel is not None:
        values |= {"type": port.type, "options": port.tunnel.model_dump(exclude_defaults=True)}
    return values


class _Reader:
    """One file and its flags on their way to a Config; ``faults`` collects."""

    def __init__(self, path: str | None, overrides: Mapping[str, Any]) -> None:
        self.document = Document("command line")
        self.values: dict[str, Any] = {}
        self.flags: dict[str, str] = {}
        if path is not None:
            self._read(path)
        self.faults = list(self.document.faults)
        directory = os.path.dirname(path) if path is not None else ""
        self._find_apps(directory)
        self._find_certificates(directory)
        self._find_plugins(directory)
        if overrides:
            self._override(overrides)
            self._find_apps("")
            self._find_plugins("")

    def _read(self, path: str) -> None:
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read()
        except OSError as error:
            raise ConfigError([Fault(path, 0, 0, f"cannot be read: {error.strerror}")]) from error
        except UnicodeDecodeError as error:
            raise ConfigError([Fault(path, 0, 0, f"is not UTF-8 text (byte {error.start})")]) from error
        self.document = parse(text, path)
        value = self.document.value
        if value is None and self.document.faults:
            raise ConfigError(self.document.faults)  # not YAML: nothing was read that could be judged
        if isinstance(value, dict):
            # An empty section (`ports:` with everything under it commented out) is as good as none.
            self.values = {key: item for key, item in value.items() if item is not None}
        elif value is not None:
            raise ConfigError([self.document.fault((), f"expected keys such as 'ports:', found {_KIND[type(value)]}")])
        if type(self.values.get("datapath_id")) in (int, float):
            # 16 digits are hexadecimal, whatever YAML takes them for: 00000000000000e0 is a float there.
            self.values["datapath_id"] = self.document.texts[("datapath_id",)]

    def _override(self, overrides: Mapping[str, Any]) -> None:
        for key, value in overrides.items():
            if value is None or key == "hook":
                continue
            before = self.values.get(key)
            if isinstance(value, Mapping) and key == "tls":
                self.values[key] = {**(before if isinstance(before, dict) else {}), **value}
            else:
                self.values[key] = tuple(value) if isinstance(value, list) else value
            self.flags[key] = _FLAGS[key]
        hook = overrides.get("hook")
        ports = self.values.get("ports")
        if hook is not None and isinstance(ports, tuple):
            self.values["ports"] = tuple(_with_hook(item, hook) for item in ports)

    # ── apps ───────────────────────────────────────────────────────────────────────────────────────────────────────────
    def _find_apps(self, directory: str) -> None:
        """An app's file is looked for from the directory of the configuration, from here, and among those that we ship."""
        section = self.values.get("integrated_controller")
        apps = section.get("apps") if isinstance(section, dict) else None
        if not isinstance(section, dict) or not isinstance(apps, tuple):
            return
        found: list[Any] = []
        for index, app in enumerate(apps):
            places = (
                [os.path.normpath(os.path.join(place, app)) for place in (directory, "", _PRODUCT)] if _is_file_name(app) else []
            )
            path = next((place for place in places if os.path.isfile(place)), None)
            if places and path is None:
                looked = ", ".join(dict.fromkeys(os.path.abspath(place) for place in places))
                self.faults.append(
                    self._fault(("integrated_controller", "apps", index), f"there is no app {app!r}; looked for {looked}")
                )
            found.append(app if path is None else path)
        self.values["integrated_controller"] = {**section, "apps": tuple(found)}

    def _find_certificates(self, directory: str) -> None:
        """Files are looked for from the directory of the configuration, as apps are. ``agent.tls`` says what is wrong with them."""
        section = self.values.get("tls")
        if isinstance(section, dict):
            self.values["tls"] = {
                key: os.path.normpath(os.path.join(directory, name)) if isinstance(name, str) and name else name
                for key, name in section.items()
            }

    def _find_plugins(self, directory: str) -> None:
        names = self.values.get("plugins")
        found: list[Any] = []
        for index, name in enumerate(names if isinstance(names, tuple) else ()):
            try:
                found.append(locate(name, directory) if isinstance(name, str) else name)
            except ValueError as error:
                self.faults.append(self._fault(("plugins", index), str(error)))
                found.append(name)
        if isinstance(names, tuple):
            self.values["plugins"] = tuple(found)

    # ── faults ─────────────────────────────────────────────────────────────────────────────────────────────────────────
    def _fault(self, path: NodePath, text: str, *, key: bool = False) -> Fault:
        flag = self.flags.get(str(path[0])) if path else None
        return Fault(flag, 0, 0, text) if flag is not None else self.document.fault(path, text, key=key)

    def _translate(self, error: ErrorDetails, prefix: NodePath = ()) -> Iterator[Fault]:
        """pydantic's words into ours, with the place."""
        path: NodePath = (*prefix, *error["loc"])
        kind, found = error["type"], error["input"]
        if kind in ("duplicate_port", "duplicate_host"):
            return  # said already, at the port or host itself
        if kind == "extra_forbidden":
            section = ".".join(str(part) for part in path[:-1] if isinstance(part, str))
            known = sorted(_SECTIONS[section].model_fields) if section in _SECTIONS else []
            if not section and not prefix:
                known.append(LAB_KEY)
            yield self._fault(path, f"unknown key {path[-1]!r}{did_you_mean(str(path[-1]), known)}", key=True)
        elif kind == "missing":
            yield self._fault(path[:-1], f"{path[-1]!r} is missing")
        elif kind == "literal_error":
            known = re.findall(r"'([^']*)'", error["ctx"]["expected"])
            hint = did_you_mean(found, known) if isinstance(found, str) else f"; it may be: {one_of(known)}"
            yield self._fault(path, f"{found!r} is not a {str(_noun(path)).removesuffix('s').replace('_', ' ')}{hint}")
        elif kind in _EXPECTED:
            shown = f" ({found!r})" if isinstance(found, str | int | float) else ""
            yield self._fault(
                path, f"{_noun(path)!r} must be {_EXPECTED[kind]}, not {_KIND.get(type(found), type(found).__name__)}{shown}"
            )
        elif kind == "no_certificates":
            yield self._fault((error["ctx"]["key"], error["ctx"]["index"]), error["msg"])
        elif kind == "local_is_a_port":
            yield self._fault(("local",), error["msg"])
        elif kind == "same_tunnel":
            yield self._fault((*path, error["ctx"]["index"]), error["msg"])
        elif kind == "value_error":
            yield self._fault(path, str(error["ctx"]["error"]))
        else:
            yield self._fault(path, error["msg"])

    def _fail(self, errors: Iterable[ErrorDetails], prefix: NodePath = ()) -> None:
        for error in errors:
            self.faults.extend(self._translate(error, prefix))

    # ── what needs more than one value ─────────────────────────────────────────────────────────────────────────────────
    def check_ports(self, known_interfaces: KnownInterfaces | None) -> None:
        """There are some, they exist, and no two share an interface or number."""
        listed = self.values.get("ports")
        if not listed and not isinstance(listed, dict | str | int):
            flagged = "; name at least one: " + ("--port eth1" if self.document.value is None else "ports: [eth1, eth2]")
            self.faults.append(self._fault(("ports",), f"the switch has no ports{flagged}"))
            return
        existing = known_interfaces() if known_interfaces is not None else None
        seen: dict[tuple[str, str | int], str] = {}
        for index, item in enumerate(listed if isinstance(listed, tuple) else ()):
            path: NodePath = ("ports", index)
            interface, number = _interface_and_number(item)
            if interface is not None:
                if existing is not None and interface not in existing and not _is_tunnel(item):
                    hint = did_you_mean(interface, sorted(existing))
                    self.faults.append(self._fault((*path, "interface"), f"there is no interface {interface!r}{hint}"))
                self._once(seen, "interface", interface, path)
            if number is not None:
                self._once(seen, "number", number, path)

    def _once(self, seen: dict[tuple[str, str | int], str], noun: str, value: str | int, path: NodePath) -> None:
        place = str(self._fault((*path, noun), "")).removesuffix(": ").removeprefix(f"{self.document.file}:")
        first = seen.setdefault((noun, value), place)
        if first is not place:
            where = f"line {first.split(':')[0]}" if ":" in first else "an earlier one"
            self.faults.append(self._fault((*path, noun), f"{noun} {value!r} is another port's already ({where})"))

    def lab(self) -> Lab | None:
        section = self.values.pop(LAB_KEY, None)
        if section is None:
            self.faults.append(
                self.document.fault((), "there is no 'lab' section; it names the hosts: lab: {hosts: [{name: h1, ...}]}")
            )
            return None
        hosts = section.get("hosts") if isinstance(section, dict) else None
        seen: dict[tuple[str, str], int] = {}
        for index, host in enumerate(hosts if isinstance(hosts, tuple) else ()):
            for noun in ("name", "address4", "address6", "mac"):
                value = host.get(noun) if isinstance(host, dict) else None
                if isinstance(value, str) and seen.setdefault((noun, value), index) != index:
                    self.faults.append(
                        self.document.fault((LAB_KEY, "hosts", index, noun), f"{noun} {value!r} is another host's already")
                    )
        try:
            return Lab.model_validate(section)
        except ValidationError as error:
            self._fail(error.errors(), (LAB_KEY,))
            return None

    def config(self) -> Config:
        """The Config, or ConfigError with all that was found."""
        config = None
        try:
            config = Config.model_validate(self.values)
        except ValidationError as error:
            self._fail(error.errors())
        if self.faults or config is None:
            raise ConfigError(self.faults)
        return config


_FLAGS = {
    "name": "--name",
    "datapath_id": "--datapath-id",
    "fail_mode": "--fail-mode",
    "protocols": "--protocols",
    "ports": "--port",
    "local": "--local",
    "controllers": "--controller",
    "listen": "--listen",
    "tls": "--private-key, --certificate, --ca-certificate",
    "integrated_controller": "--app",
    "control_socket": "--control-socket",
    "max_megaflows": "--max-megaflows",
    "big_tcp": "--big-tcp",
    "plugins": "--plugin",
}


def _is_file_name(app: object) -> bool:
    return isinstance(app, str) and (app.endswith(".py") or "/" in app)


def _with_hook(port: Any, hook: str) -> Any:
    """A port as written, with another hook; a tunnel has its own, and what is no port is left for validation to refuse."""
    if _is_tunnel(port):
        return port
    if isinstance(port, dict):
        return {**port, "hook": hook}
    try:
        spec = PortSpec.model_validate(port)
    except ValidationError:
        return port
    return {**spec.model_dump(exclude_defaults=True), "hook": hook}


def _is_tunnel(port: Any) -> bool:
    return isinstance(port, dict) and port.get("type", "system") != "system"


def _interface_and_number(port: Any) -> tuple[str | None, int | None]:
    """What can be read of a port as written, so that one fault in it does not hide another; None for what cannot."""
    if isinstance(port, str):
        interface, _, text = port.partition("=")
        return interface or None, int(text) if text.isascii() and text.isdigit() else None
    if not isinstance(port, dict):
        return None, None
    name, number = port.get("interface"), port.get("number")
    is_number = isinstance(number, int) and not isinstance(number, bool)
    return (name if isinstance(name, str) and name else None), (number if is_number else None)


def _noun(path: NodePath) -> str | int:
    """What to call the value at a path: its key, or its list's."""
    return next((part for part in reversed(path) if isinstance(part, str)), "the file")

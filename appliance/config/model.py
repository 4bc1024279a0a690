"""One switch as the rest of the program sees it: frozen, complete, and right in itself.

Invariant: a ``Config`` that exists has unique port numbers (1 to MAX_PORT_NUMBER) and unique interfaces, whoever made it.
Texts of faults say what would be right; ``load`` adds where.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, StrictInt, StrictStr, field_validator, model_validator
from pydantic_core import PydanticCustomError

from appliance.config.addresses import ControllerAddress, ListenAddress, TlsFiles
from appliance.config.frozen import Frozen
from appliance.config.port import PortSpec, check_interface
from appliance.model.ports import MAX_PORT_NUMBER

RUN_DIRECTORY = "/run/ofswitch"
DEFAULT_APPS = ("ryu_apps/l2_learning.py",)
"""What the integrated controller runs if the configuration names nothing else."""

MAX_SOCKET_PATH = 107
MAX_MEGAFLOWS = 1 << 20

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")

FailMode = Literal["secure", "standalone"]
ProtocolVersion = Literal["OpenFlow13"]
BigTcpChoice = Literal["auto", "off"]


class IntegratedController(Frozen):
    """The child process that runs Ryu apps: files (``*.py``) or modules."""

    apps: tuple[StrictStr, ...] = DEFAULT_APPS

    @field_validator("apps")
    @classmethod
    def _named(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or not all(value):
            raise ValueError(f"name at least one app, for example {DEFAULT_APPS[0]}")
        return value


def parse_datapath_id(value: Any) -> int | None:
    """An int, ``0x…``, 16 hexadecimal digits, 8 octets aa:bb:… or a MAC address (the lower 48 bits). Raises ValueError."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        number = value
    elif isinstance(value, str):
        number = _datapath_id_text(value.strip())
    else:
        number = -1
    if number is not None and not 0 < number < 1 << 64:
        raise ValueError(
            f"{value!r} is not a datapath id; write 16 hexadecimal digits, aa:bb:cc:dd:ee:ff:00:11, or a number from 1 to 2^64-1"
        )
    return number


def _datapath_id_text(text: str) -> int:
    if re.fullmatch(r"0[xX][0-9A-Fa-f]{1,16}", text):
        return int(text, 16)
    octets = re.fullmatch(r"[0-9A-Fa-f]{2}(?:[:.-][0-9A-Fa-f]{2}){5}(?:(?:[:.-][0-9A-Fa-f]{2}){2})?", text)
    if octets is not None:
        return int(re.sub(r"[:.-]", "", text), 16)
    if re.fullmatch(r"[0-9A-Fa-f]{16}", text):
        return int(text, 16)
    return int(text) if re.fullmatch(r"[0-9]{1,20}", text) else -1


DatapathId = Annotated[int | None, BeforeValidator(parse_datapath_id)]


def assign_numbers(ports: tuple[PortSpec, ...]) -> tuple[PortSpec, ...]:
    """Give each port without a number the lowest one that is free, in order."""
    taken = {port.number for port in ports if port.number}
    free = [number for number in range(1, MAX_PORT_NUMBER + 1) if number not in taken]
    without = [port for port in ports if not port.number]
    if len(without) > len(free):
        raise ValueError(f"{len(ports)} ports are too many; a switch has at most {MAX_PORT_NUMBER}")
    given = iter(free)
    return tuple(port if port.number else port.model_copy(update={"number": next(given)}) for port in ports)


def _local(value: Any) -> Any:
    if value in (False, "none"):
        return False
    if value is True or isinstance(value, (int, float)):
        raise ValueError(f"{value!r} is not an interface name; write the one that the switch is to make, or none")
    return check_interface(value)


LocalInterface = Annotated[StrictStr | Literal[False] | None, BeforeValidator(_local)]


class Config(Frozen):
    """One switch. ``datapath_id`` None: the agent derives it from the first port's MAC address."""

    name: StrictStr = "ofswitch"
    datapath_id: DatapathId = None
    fail_mode: FailMode = "secure"
    protocols: tuple[ProtocolVersion, ...] = ("OpenFlow13",)
    ports: tuple[PortSpec, ...] = ()
    local: LocalInterface = None
    """What was asked for: OFPP_LOCAL's interface, False for no such port. None: see ``local_interface``."""
    controllers: tuple[ControllerAddress, ...] = ()
    listen: tuple[ListenAddress, ...] = ()
    tls: TlsFiles | None = None
    """There in a Config that has an address with TLS."""
    integrated_controller: IntegratedController | None = None
    control_socket: StrictStr = ""
    """Never empty in a Config: the default is RUN_DIRECTORY/NAME.sock."""
    max_megaflows: StrictInt = 65_536
    big_tcp: BigTcpChoice = "auto"
    """``auto``: the hosts' TCP may send frames of more than 64 KB where every port takes them whole (``agent.big_tcp``)."""
    plugins: tuple[StrictStr, ...] = ()
    """Names of shipped ones, and folders (``config.plugins``)."""

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError(f"{value!r} is not a name; use up to 63 letters, digits, '.', '_' and '-'")
        return value

    @field_validator("protocols")
    @classmethod
    def _some_protocol(cls, value: tuple[ProtocolVersion, ...]) -> tuple[ProtocolVersion, ...]:
        if not value:
            raise ValueError("name at least one protocol version: OpenFlow13")
        return tuple(dict.fromkeys(value))

    @field_validator("max_megaflows")
    @classmethod
    def _some_megaflows(cls, value: int) -> int:
        if not 1 <= value <= MAX_MEGAFLOWS:
            raise ValueError(f"{value} is not a number of megaflows; it must be 1 to {MAX_MEGAFLOWS}")
        return value

    @field_validator("control_socket")
    @classmethod
    def _socket_path(cls, value: str) -> str:
        if not value.startswith("/") or len(value.encode()) > MAX_SOCKET_PATH:
            raise ValueError(f"{value!r} is not a socket's path; it must start with / and have at most {MAX_SOCKET_PATH} bytes")
        return value

    @field_validator("ports")
    @classmethod
    def _numbered(cls, ports: tuple[PortSpec, ...]) -> tuple[PortSpec, ...]:
        for noun in ("interface", "number"):
            given = [getattr(port, noun) for port in ports if getattr(port, noun)]
            twice = sorted({item for item in given if given.count(item) > 1})
            if twice:
                raise PydanticCustomError(
                    "duplicate_port", "two ports have the same {noun}: {twice}", {"noun": noun, "twice": str(twice)}
                )
        ends: dict[tuple[Any, ...], str] = {}
        for index, port in enumerate(ports):
            if port.type == "system" or port.tunnel is None:
                continue
            tunnel = port.tunnel.port(port.type)
            end = (port.type, port.tunnel.udp_port(port.type), tunnel.remote, tunnel.local, tunnel.key)
            other = ends.setdefault(end, port.interface)
            if other != port.interface:
                text = f"{port.interface} and {other} are the same end: of one remote_ip, local_ip, key and UDP port"
                raise PydanticCustomError("same_tunnel", "{text}", {"text": text, "index": index})
        return assign_numbers(ports)

    @model_validator(mode="before")
    @classmethod
    def _default_socket(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("control_socket") is None:
            name = values.get("name", cls.model_fields["name"].default)
            if isinstance(name, str) and _NAME.fullmatch(name):
                return {**values, "control_socket": f"{RUN_DIRECTORY}/{name}.sock"}
        return values

    @model_validator(mode="after")
    def _has_certificates(self) -> Self:
        for key in ("controllers", "listen"):
            for index, address in enumerate(getattr(self, key)):
                if address.tls and self.tls is None:
                    context = {"address": str(address), "key": key, "index": index}
                    raise PydanticCustomError(
                        "no_certificates", "{address} needs tls: private_key, certificate and ca_certificate", context
                    )
        return self

    @model_validator(mode="after")
    def _local_is_new(self) -> Self:
        if self.local and any(port.interface == self.local for port in self.ports):
            text = "{local!r} is one of the ports; the switch makes this interface itself"
            raise PydanticCustomError("local_is_a_port", "{text}", {"text": text.format(local=self.local)})
        return self

    @property
    def local_interface(self) -> str | None:
        """The host's interface at OFPP_LOCAL, which the switch makes; None for none. Unless it is said, it has the switch's name,
        if an interface can have that, and no port does.
        """
        if self.local is not None:
            return self.local or None
        try:
            name: str = check_interface(self.name)
        except ValueError:
            return None
        return None if any(port.interface == name for port in self.ports) else name

    @property
    def uses_integrated_controller(self) -> bool:
        """Asked for, or nobody else was named who could control the switch."""
        return self.integrated_controller is not None or not (self.controllers or self.listen)

    @property
    def integrated_apps(self) -> tuple[str, ...]:
        """What the integrated controller runs; empty if there is none."""
        if not self.uses_integrated_controller:
            return ()
        return self.integrated_controller.apps if self.integrated_controller is not None else DEFAULT_APPS

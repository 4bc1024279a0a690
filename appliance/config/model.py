"""The configuration as the rest of the program sees it: frozen, complete, and right in itself.

Invariant: a ``Config`` that exists has unique port numbers (1 to MAX_PORT_NUMBER) and unique interfaces, whoever made it.
Texts of faults say what would be right; ``load`` adds where.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, StrictInt, StrictStr, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from appliance.config.tunnel import UDP_PORTS, TunnelOptions
from appliance.model.ports import MAX_PORT_NUMBER
from appliance.model.queues import MAX_QUEUE_ID

DEFAULT_OPENFLOW_PORT = 6653
RUN_DIRECTORY = "/run/ofswitch"
DEFAULT_APPS = ("ryu_apps/l2_learning.py",)
"""What the integrated controller runs if the configuration names nothing else."""

MAX_INTERFACE_NAME = 15
MAX_SOCKET_PATH = 107
MAX_MEGAFLOWS = 1 << 20
MAX_AUXILIARY = 255
MAX_RATE = 10**14
"""Bits a second."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_HOST_NAME = re.compile(r"(?=.{1,253}$)(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")
_MAC = re.compile(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}")

FailMode = Literal["secure", "standalone"]
HookChoice = Literal["auto", "xdp", "xdp-generic", "tc"]
PortType = Literal["system", "vxlan", "geneve", "gre"]
ProtocolVersion = Literal["OpenFlow13"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


# ── addresses ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def _tcp_port(text: str, whole: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 0xFFFF:
        raise ValueError(f"{whole!r}: {text!r} is not a TCP port; it must be a number from 1 to 65535")
    return int(text)


def _address(text: str, whole: str, *, names: bool) -> str:
    """An IP address (IPv6 without its brackets), or with ``names`` also a host name."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        # Four numbers are a mistyped address, not a name.
        if names and bare == text and _HOST_NAME.fullmatch(text) and not re.fullmatch(r"[0-9.]+", text):
            return text
    allowed = "a host name, an IPv4 address or an IPv6 address in []" if names else "an IPv4 address or an IPv6 address in []"
    raise ValueError(f"{whole!r}: {text!r} is not {allowed}") from None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


Scheme = Literal["tcp", "ssl"]


def _controller(text: str) -> dict[str, Any]:
    scheme, colon, rest = text.partition(":")
    if scheme not in ("tcp", "ssl") or not colon:
        raise ValueError(f"{text!r} is not a controller; write tcp:HOST or tcp:HOST:PORT (ssl: for TLS)")
    matched = re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*)(?::([^:]*))?", rest)
    if matched is None:
        raise ValueError(f"{text!r} is not a controller; write {scheme}:HOST:PORT, an IPv6 address in []: {scheme}:[::1]:6653")
    host, port = matched.groups()
    number = DEFAULT_OPENFLOW_PORT if port is None else _tcp_port(port, text)
    return {"host": _address(host, text, names=True), "port": number, "scheme": scheme}


class ControllerAddress(_Frozen):
    """A controller to connect to, written ``tcp:HOST[:PORT]``, or ``ssl:HOST[:PORT]`` for TLS; IPv6 in brackets.

    With auxiliary connections it is written ``{target: tcp:HOST[:PORT], auxiliary: NUMBER}``.
    """

    host: StrictStr
    port: StrictInt = DEFAULT_OPENFLOW_PORT
    scheme: Scheme = "tcp"
    auxiliary: StrictInt = 0
    """Connections besides the main one."""

    @field_validator("auxiliary")
    @classmethod
    def _some(cls, value: int) -> int:
        if not 0 <= value <= MAX_AUXILIARY:
            raise ValueError(f"{value} is not a number of auxiliary connections; it must be 0 to {MAX_AUXILIARY}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("target"), str):
            return {**{key: item for key, item in value.items() if key != "target"}, **_controller(value["target"])}
        return _controller(value) if isinstance(value, str) else value

    @property
    def tls(self) -> bool:
        return self.scheme == "ssl"

    def __str__(self) -> str:
        return f"{self.scheme}:{_bracketed(self.host)}:{self.port}"


class ListenAddress(_Frozen):
    """Where controllers may connect to us, written ``ptcp:[PORT][:ADDRESS]``, or ``pssl:`` for TLS.

    Without an address, 127.0.0.1: this machine only.
    """

    port: StrictInt = DEFAULT_OPENFLOW_PORT
    address: StrictStr = ""
    scheme: Scheme = "tcp"

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        scheme, colon, rest = value.partition(":")
        if scheme not in ("ptcp", "pssl") or not colon:
            raise ValueError(f"{value!r} is not a place to listen; write ptcp:PORT or ptcp:PORT:ADDRESS (pssl: for TLS)")
        port, colon, address = rest.partition(":")
        number = _tcp_port(port, value) if port else DEFAULT_OPENFLOW_PORT
        return {"port": number, "address": _address(address, value, names=False) if colon else "", "scheme": scheme[1:]}

    @property
    def tls(self) -> bool:
        return self.scheme == "ssl"

    def __str__(self) -> str:
        return f"p{self.scheme}:{self.port}" + (f":{_bracketed(self.address)}" if self.address else "")


class TlsFiles(_Frozen):
    """PEM files: the switch's own key and certificate (with those between it and the authority, if any), and the certificates of
    the authorities that controllers' certificates must come from. Each side must show a certificate.
    """

    private_key: StrictStr
    certificate: StrictStr
    ca_certificate: StrictStr


# ── the switch ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def _interface(value: Any) -> Any:
    if isinstance(value, str) and (
        not 0 < len(value.encode()) <= MAX_INTERFACE_NAME or re.search(r"[\s/:]", value) or value in (".", "..")
    ):
        raise ValueError(
            f"{value!r} is not an interface name; it has 1 to {MAX_INTERFACE_NAME} characters, no space, slash or colon"
        )
    return value


InterfaceName = Annotated[StrictStr, BeforeValidator(_interface)]


_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kMGT]?)(?:bit/s|b/s|bit|bps)?")
_MULTIPLE = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def parse_rate(value: Any) -> Any:
    """Bits a second of a number or of text such as ``100M`` or ``2.5 Gb/s``. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool):
        rate = value
    elif isinstance(value, str) and (matched := _RATE.fullmatch(value)) is not None:
        rate = round(float(matched[1]) * _MULTIPLE[matched[2]])
    elif value is None:
        return None
    else:
        rate = 0
    if not 8 <= rate <= MAX_RATE:
        raise ValueError(f"{value!r} is not a rate; write bits a second (at least 8), for example 100M or 2.5G")
    return rate


Rate = Annotated[StrictInt | None, BeforeValidator(parse_rate)]


class QueueSpec(_Frozen):
    """One queue of a port. Rates are in bits a second, None for none: what it is promised, and what it never exceeds."""

    id: StrictInt
    min_rate: Rate = None
    max_rate: Rate = None

    @field_validator("id")
    @classmethod
    def _in_range(cls, value: int) -> int:
        if not 0 <= value <= MAX_QUEUE_ID:
            raise ValueError(f"{value} is not a queue's number; it must be 0 to {MAX_QUEUE_ID}")
        return value

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min_rate is not None and self.max_rate is not None and self.min_rate > self.max_rate:
            raise ValueError(f"queue {self.id}: min_rate {self.min_rate} is more than max_rate {self.max_rate}")
        return self


class PortSpec(_Frozen):
    """One port, also written ``INTERFACE`` or ``INTERFACE=NUMBER``. In a ``Config``, ``number`` is never 0."""

    interface: InterfaceName
    number: StrictInt = 0
    """0 asks for the lowest number that no other port has."""
    type: PortType = "system"
    """A tunnel port's ``interface`` is a name alone; several share a device of the kernel, which the switch makes."""
    options: TunnelOptions | None = None
    hook: HookChoice = "auto"
    queues: tuple[QueueSpec, ...] = ()

    @property
    def tunnel(self) -> TunnelOptions | None:
        """None for a port that is no tunnel's."""
        return None if self.type == "system" else self.options or TunnelOptions()

    @field_validator("options")
    @classmethod
    def _for_the_type(cls, value: TunnelOptions | None, info: ValidationInfo) -> TunnelOptions | None:
        kind = info.data.get("type")
        if kind == "system" and value is not None:
            raise ValueError("options are for tunnels; add a type: vxlan, geneve or gre")
        if kind in UDP_PORTS and value is not None:
            value.check(kind)
        return value

    @field_validator("hook")
    @classmethod
    def _met_at_tc(cls, value: HookChoice, info: ValidationInfo) -> HookChoice:
        if value == "xdp" and info.data.get("type") in UDP_PORTS:
            raise ValueError("XDP knows no tunnels: a tunnel port is met at tc; take this out")
        return value

    @field_validator("queues")
    @classmethod
    def _distinct(cls, value: tuple[QueueSpec, ...], info: ValidationInfo) -> tuple[QueueSpec, ...]:
        if value and info.data.get("type") in UDP_PORTS:
            raise ValueError("a tunnel port has no queues; packets keep theirs on the interface that the tunnel leaves by")
        given = [queue.id for queue in value]
        twice = sorted({item for item in given if given.count(item) > 1})
        if twice:
            raise ValueError(f"two queues have the same id: {', '.join(map(str, twice))}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        interface, equals, number = value.partition("=")
        if not equals:
            return {"interface": interface}
        if not number.isascii() or not number.isdigit():
            raise ValueError(
                f"{value!r}: {number!r} is not a port number; write INTERFACE=NUMBER, for example {interface or 'eth1'}=1"
            )
        return {"interface": interface, "number": int(number)}

    @field_validator("number")
    @classmethod
    def _in_range(cls, value: int) -> int:
        # 0 itself cannot be written: the default is not validated.
        if not 1 <= value <= MAX_PORT_NUMBER:
            raise ValueError(f"{value} is not a port number; it must be 1 to {MAX_PORT_NUMBER}")
        return value


class IntegratedController(_Frozen):
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
    return _interface(value)


LocalInterface = Annotated[StrictStr | Literal[False] | None, BeforeValidator(_local)]


class Config(_Frozen):
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
            name: str = _interface(self.name)
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


# ── the lab ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _with_prefix(version: int) -> BeforeValidator:
    example = "10.0.0.1/24" if version == 4 else "fd00::1/64"

    def check(value: Any) -> Any:
        if isinstance(value, str):
            try:
                address = ipaddress.ip_interface(value)
            except ValueError:
                address = None
            if address is None or address.version != version or "/" not in value:
                raise ValueError(f"{value!r} is not an IPv{version} address with its prefix length, for example {example}")
        return value

    return BeforeValidator(check)


class LabHost(_Frozen):
    """One host: a network namespace joined to the switch by a veth pair. Addresses carry their prefix length."""

    name: StrictStr
    address4: Annotated[StrictStr, _with_prefix(4)]
    address6: Annotated[StrictStr, _with_prefix(6)]
    mac: StrictStr | None = None
    """None: 02:00:00:00:00:NN, NN the host's place from 1."""

    @field_validator("name")
    @classmethod
    def _short_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9]{1,4}", value):
            raise ValueError(f"{value!r} is not a host's name; use 1 to 4 letters and digits (it is part of an interface name)")
        return value

    @field_validator("mac")
    @classmethod
    def _unicast(cls, value: str | None) -> str | None:
        if value is not None and (not _MAC.fullmatch(value) or int(value[:2], 16) & 1):
            raise ValueError(f"{value!r} is not a host's MAC address, for example 02:00:00:00:00:01")
        return value


class Lab(_Frozen):
    """The ``lab`` section: the hosts, and what is tried between the first and the second of them.

    ``transfer_mb``: 10^6 bytes sent by TCP. ``blocked_tcp_ports``: ports that must not be reached (for a firewall).
    """

    hosts: tuple[LabHost, ...]
    transfer_mb: StrictInt = 1000
    blocked_tcp_ports: tuple[StrictInt, ...] = ()

    @field_validator("blocked_tcp_ports")
    @classmethod
    def _tcp_ports(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        for port in value:
            _tcp_port(str(port), str(port))
        return value

    @field_validator("transfer_mb")
    @classmethod
    def _some(cls, value: int) -> int:
        if not 1 <= value <= 1_000_000:
            raise ValueError(f"{value} is not a number of megabytes; it must be 1 to 1000000")
        return value

    @field_validator("hosts")
    @classmethod
    def _distinct(cls, hosts: tuple[LabHost, ...]) -> tuple[LabHost, ...]:
        if not 2 <= len(hosts) <= 200:
            raise ValueError(f"a lab has 2 to 200 hosts, not {len(hosts)}")
        for noun in ("name", "address4", "address6", "mac"):
            given = [getattr(host, noun) for host in hosts if getattr(host, noun)]
            twice = sorted({item for item in given if given.count(item) > 1})
            if twice:
                raise PydanticCustomError(
                    "duplicate_host", "two hosts have the same {noun}: {twice}", {"noun": noun, "twice": ", ".join(twice)}
                )
        return hosts

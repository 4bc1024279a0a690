"""The configuration: what is accepted and becomes what, and that every fault is told at once, at its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.config import (
    DEFAULT_APPS,
    Config,
    ConfigError,
    ControllerAddress,
    LabHost,
    ListenAddress,
    PortSpec,
    TlsFiles,
    dump,
    load,
    load_lab,
)

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    def write_file(text: str) -> str:
        path = tmp_path / "x.yaml"
        path.write_text(text)
        return str(path)

    return write_file


def faults(path: str | None = None, overrides: dict[str, Any] | None = None, known: list[str] | None = None) -> list[str]:
    """Without the directory: ``x.yaml:1:1: …``."""
    with pytest.raises(ConfigError) as raised:
        load(path, overrides, None if known is None else lambda: known)
    return [str(fault).replace(f"{Path(path).parent}/", "") if path else str(fault) for fault in raised.value.faults]


# ── what is right ──────────────────────────────────────────────────────────────────────────────────────────────────────
def test_defaults() -> None:
    config = load(None, {"ports": ["eth1"]})
    assert config == Config(ports=(PortSpec(interface="eth1", number=1),))
    assert (config.name, config.datapath_id, config.fail_mode, config.protocols) == ("ofswitch", None, "secure", ("OpenFlow13",))
    assert config.control_socket == "/run/ofswitch/ofswitch.sock"
    assert config.uses_integrated_controller
    assert config.integrated_apps == DEFAULT_APPS


def test_everything(write: Callable[[str], str], tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("")
    config = load(
        write(
            """
name: edge-1
datapath_id: 0000000000000010
fail_mode: standalone
protocols: [OpenFlow13]
ports:
  - eth3
  - {interface: eth1, number: 2, hook: tc}
  - eth2=1
  - no
controllers: [tcp:192.0.2.1:6653, "tcp:[2001:db8::1]", tcp:controller.example:6633]
listen: ["ptcp:", "ptcp:6654:127.0.0.1", "ptcp::[::1]"]
integrated_controller: {apps: [app.py, some.module, ryu_apps/l2_learning.py]}
control_socket: /tmp/edge.sock
max_megaflows: 1000
big_tcp: off
"""
        ),
        known_interfaces=lambda: {"eth1", "eth2", "eth3", "no"},
    )
    assert config.datapath_id == 0x10
    assert config.fail_mode == "standalone"
    assert [(port.interface, port.number, port.hook) for port in config.ports] == [
        ("eth3", 3, "auto"),
        ("eth1", 2, "tc"),
        ("eth2", 1, "auto"),
        ("no", 4, "auto"),  # not YAML 1.1's false
    ]
    assert [(item.host, item.port) for item in config.controllers] == [
        ("192.0.2.1", 6653),
        ("2001:db8::1", 6653),
        ("controller.example", 6633),
    ]
    assert [(item.port, item.address) for item in config.listen] == [(6653, ""), (6654, "127.0.0.1"), (6653, "::1")]
    assert config.integrated_apps == (str(tmp_path / "app.py"), "some.module", "ryu_apps/l2_learning.py")
    assert config.uses_integrated_controller, "it was asked for, beside the others"
    assert (config.control_socket, config.max_megaflows, config.big_tcp) == ("/tmp/edge.sock", 1000, "off")


@pytest.mark.parametrize("given", [{"controllers": ["tcp:192.0.2.1"]}, {"listen": ["ptcp:6653"]}])
def test_somebody_else_controls_the_switch(given: dict[str, Any]) -> None:
    config = load(None, {"ports": ["eth1"], **given})
    assert not config.uses_integrated_controller
    assert config.integrated_apps == ()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("0x1f", 0x1F),
        ("12345678901234567", 12345678901234567),
        ("0000000000000010", 0x10),
        ("00000000000000e0", 0xE0),
        ("0000000000000080", 0x80),
        ("1000000000000010", 0x1000000000000010),
        ("00:00:00:00:00:00:00:2a", 0x2A),
        ("10:20:30:40:50:10:20:30", 0x1020304050102030),
        ("02:00:00:00:00:0a", 0x02000000000A),
        ("'00-00-02-00-00-00-00-0a'", 0x02000000000A),
        ("18446744073709551615", (1 << 64) - 1),
        ("~", None),
    ],
)
def test_datapath_ids(write: Callable[[str], str], text: str, value: int | None) -> None:
    assert load(write(f"datapath_id: {text}\nports: [eth1]")).datapath_id == value


@pytest.mark.parametrize("text", ["0", "18446744073709551616", "xyz", "-1", "00:11:22", "true", "1.5", "[1]"])
def test_what_is_no_datapath_id(write: Callable[[str], str], text: str) -> None:
    (fault,) = faults(write(f"ports: [eth1]\ndatapath_id: {text}"))
    assert fault.startswith("x.yaml:2:14: ")
    assert "is not a datapath id; write 16 hexadecimal digits" in fault


def test_flags_override_the_file(write: Callable[[str], str]) -> None:
    path = write("name: a\nports: [eth1, {interface: eth2, hook: tc}]\ncontrollers: [tcp:192.0.2.1]\nmax_megaflows: 7")
    config = load(path, {"name": "b", "controllers": ["tcp:192.0.2.2:1"], "hook": "xdp", "ports": None, "listen": None})
    assert (config.name, config.control_socket, config.max_megaflows) == ("b", "/run/ofswitch/b.sock", 7)
    assert [str(item) for item in config.controllers] == ["tcp:192.0.2.2:1"]
    assert [(port.interface, port.hook) for port in config.ports] == [("eth1", "xdp"), ("eth2", "xdp")]
    assert [port.interface for port in load(path, {"ports": ["eth9"]}).ports] == ["eth9"]


def test_certificates_are_looked_for_beside_the_file_and_those_of_flags_from_here(write: Callable[[str], str]) -> None:
    path = write(
        "ports: [eth1]\ncontrollers: ['ssl:192.0.2.1']\nlisten: ['pssl:', 'pssl:6654:[::1]']\n"
        "tls: {private_key: pki/key.pem, certificate: ../c.pem, ca_certificate: /ca.pem}"
    )
    here = Path(path).parent
    config = load(path)
    assert config.tls == TlsFiles(
        private_key=str(here / "pki/key.pem"), certificate=str(here.parent / "c.pem"), ca_certificate="/ca.pem"
    )
    assert [str(item) for item in (*config.controllers, *config.listen)] == ["ssl:192.0.2.1:6653", "pssl:6653", "pssl:6654:[::1]"]
    assert all(item.tls for item in (*config.controllers, *config.listen))
    other = load(path, {"tls": {"certificate": "mine.pem"}}).tls
    assert other is not None
    assert (other.certificate, other.ca_certificate) == ("mine.pem", "/ca.pem")


@pytest.mark.parametrize(
    ("text", "rate"), [("8", 8), ("100k", 100_000), ("2.5G", 2_500_000_000), ("10 Mb/s", 10_000_000), ("1Tbit/s", 10**12)]
)
def test_rates_of_queues_have_units(write: Callable[[str], str], text: str, rate: int) -> None:
    path = write(f"ports: [{{interface: eth1, queues: [{{id: 3, min_rate: {text}}}, {{id: 0, max_rate: {text}}}]}}]")
    (port,) = load(path).ports
    assert [(queue.id, queue.min_rate, queue.max_rate) for queue in port.queues] == [(3, rate, None), (0, None, rate)]
    assert load(write(dump(load(path)))) == load(path)


def test_a_controller_may_have_auxiliary_connections(write: Callable[[str], str]) -> None:
    path = write("ports: [eth1]\ncontrollers: ['tcp:192.0.2.1', {target: 'tcp:[::1]:7', auxiliary: 3}]")
    config = load(path)
    assert [(str(item), item.auxiliary) for item in config.controllers] == [("tcp:192.0.2.1:6653", 0), ("tcp:[::1]:7", 3)]
    assert load(write(dump(config))) == config


def test_a_fault_that_a_flag_overrides_is_none(write: Callable[[str], str]) -> None:
    path = write("ports: [eth1]\nfail_mode: sekure")
    assert load(path, {"fail_mode": "standalone"}).fail_mode == "standalone"


@given(
    st.builds(
        Config,
        name=st.from_regex(r"[a-z][a-z0-9_.-]{0,20}", fullmatch=True),
        datapath_id=st.none() | st.integers(1, (1 << 64) - 1),
        fail_mode=st.sampled_from(["secure", "standalone"]),
        ports=st.lists(
            st.builds(
                PortSpec,
                interface=st.from_regex(r"[a-z0-9.]{1,15}", fullmatch=True).filter(lambda name: name not in (".", "..")),
                number=st.integers(1, 4095),
                hook=st.sampled_from(["auto", "xdp", "xdp-generic", "tc"]),
            ),
            min_size=1,
            max_size=4,
            unique_by=(lambda port: port.interface, lambda port: port.number),
        ).map(tuple),
        controllers=st.lists(
            st.builds(
                ControllerAddress,
                host=st.ip_addresses().map(str),
                port=st.integers(1, 65535),
                scheme=st.sampled_from(["tcp", "ssl"]),
            )
        ).map(tuple),
        listen=st.lists(
            st.builds(
                ListenAddress,
                port=st.integers(1, 65535),
                address=st.just("") | st.ip_addresses().map(str),
                scheme=st.sampled_from(["tcp", "ssl"]),
            )
        ).map(tuple),
        tls=st.just(TlsFiles(private_key="/a/k.pem", certificate="/b.pem", ca_certificate="/c")),
        max_megaflows=st.integers(1, 100_000),
        big_tcp=st.sampled_from(["auto", "off"]),
    )
)
def test_a_dumped_config_is_loaded_as_it_was(tmp_path_factory: pytest.TempPathFactory, config: Config) -> None:
    path = tmp_path_factory.getbasetemp() / "dumped.yaml"
    path.write_text(dump(config))
    assert load(str(path)) == config


@pytest.mark.parametrize("name", ["1e5", "0", "007", "no", "null", "0x1", "10.5", "true", "~", "=", "1_0"])
def test_an_interface_that_looks_like_something_else_survives_dumping(write: Callable[[str], str], name: str) -> None:
    config = Config(ports=(PortSpec(interface=name),))
    assert load(write(dump(config))) == config


# ── what is wrong ──────────────────────────────────────────────────────────────────────────────────────────────────────
def test_every_fault_is_told_at_once_with_its_place(write: Callable[[str], str]) -> None:
    path = write(
        """name: "sw 1"
fail_mod: secure
fail_mode: secur
protocols: [OpenFlow14, OpenFlow13]
ports:
  - eth1
  - {interface: eth2, number: 1, hok: tc}
  - {interface: eht1, number: 1}
  - eth3=5000
  - {number: three}
  - eth1
  - 17
controllers: [tcp:1.2.3, "tcp:[::1]:99999", udp:foo, "tcp:::1:3"]
listen: "ptcp:"
max_megaflows: many
max_megaflows: 3
integrated_controller: {apps: [nope.py]}
control_socket: here.sock
"""
    )
    assert faults(path, known=["eth1", "eth2", "eth3", "lo"]) == [
        "x.yaml:1:7: 'sw 1' is not a name; use up to 63 letters, digits, '.', '_' and '-'",
        "x.yaml:2:1: unknown key 'fail_mod'; did you mean 'fail_mode'?",
        "x.yaml:3:12: 'secur' is not a fail mode; did you mean 'secure'?",
        "x.yaml:4:13: 'OpenFlow14' is not a protocol; did you mean 'OpenFlow13'?",
        "x.yaml:7:34: unknown key 'hok'; did you mean 'hook'?",
        "x.yaml:8:17: there is no interface 'eht1'; did you mean 'eth1'?",
        "x.yaml:8:31: number 1 is another port's already (line 7)",
        "x.yaml:9:5: 5000 is not a port number; it must be 1 to 4095",
        "x.yaml:10:5: 'interface' is missing",
        "x.yaml:10:14: 'number' must be a whole number, not text ('three')",
        "x.yaml:11:5: interface 'eth1' is another port's already (line 6)",
        "x.yaml:12:5: 'ports' must be a mapping (key: value), not a whole number (17)",
        "x.yaml:13:15: 'tcp:1.2.3': '1.2.3' is not a host name, an IPv4 address or an IPv6 address in []",
        "x.yaml:13:26: 'tcp:[::1]:99999': '99999' is not a TCP port; it must be a number from 1 to 65535",
        "x.yaml:13:45: 'udp:foo' is not a controller; write tcp:HOST or tcp:HOST:PORT (ssl: for TLS)",
        "x.yaml:13:54: 'tcp:::1:3' is not a controller; write tcp:HOST:PORT, an IPv6 address in []: tcp:[::1]:6653",
        "x.yaml:14:9: 'listen' must be a list, not text ('ptcp:')",
        "x.yaml:15:16: 'max_megaflows' must be a whole number, not text ('many')",
        "x.yaml:16:1: 'max_megaflows' is here twice (see line 15)",
        f"x.yaml:17:32: there is no app 'nope.py'; looked for nope.py, {Path.cwd()}/nope.py",
        "x.yaml:18:17: 'here.sock' is not a socket's path; it must start with / and have at most 107 bytes",
    ]


def test_faults_in_flags_name_the_flag() -> None:
    assert faults(None, {"ports": ["eth1", "eth1=3", "eth2=x"], "controllers": ["x"], "datapath_id": "y"}, ["eth1"]) == [
        "--controller: 'x' is not a controller; write tcp:HOST or tcp:HOST:PORT (ssl: for TLS)",
        "--datapath-id: 'y' is not a datapath id; write 16 hexadecimal digits, aa:bb:cc:dd:ee:ff:00:11, "
        "or a number from 1 to 2^64-1",
        "--port: 'eth2=x': 'x' is not a port number; write INTERFACE=NUMBER, for example eth2=1",
        "--port: interface 'eth1' is another port's already (an earlier one)",
        "--port: there is no interface 'eth2'; did you mean 'eth1'?",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ports: [eth1", "1:13: not YAML: while parsing a flow sequence, expected ',' or ']', but got '<stream end>'"),
        (
            "ports: [eth1]\n\tname: a",
            "2:1: not YAML: while scanning for the next token, found character '\\t' that cannot start any token",
        ),
        ("- eth1", "1:1: expected keys such as 'ports:', found a list"),
        ("", "1:1: the switch has no ports; name at least one: --port eth1"),
        ("name: a\nports:", "2:7: the switch has no ports; name at least one: ports: [eth1, eth2]"),
        ("ports: []", "1:8: the switch has no ports; name at least one: ports: [eth1, eth2]"),
        ("ports: eth1", "1:8: 'ports' must be a list, not text ('eth1')"),
        ("ports: [a/b]", "1:9: 'a/b' is not an interface name; it has 1 to 15 characters, no space, slash or colon"),
        ("ports: [eth1]\nprotocols: []", "2:12: name at least one protocol version: OpenFlow13"),
        ("ports: [eth1]\nfail_mode: true", "2:12: True is not a fail mode; it may be: secure, standalone"),
        ("ports: [eth1]\nbig_tcp: 185000", "2:10: 185000 is not a big tcp; it may be: auto, off"),
        ("ports: [eth1]\nbig_tcp: true", "2:10: True is not a big tcp; it may be: auto, off"),
        ("ports: [eth1]\nbig_tcp: of", "2:10: 'of' is not a big tcp; did you mean 'off'?"),
        ("ports: [eth1]\nmax_megaflows: 0", "2:16: 0 is not a number of megaflows; it must be 1 to 1048576"),
        ("ports: [{interface: eth1, number: 0}]", "1:35: 0 is not a port number; it must be 1 to 4095"),
        (
            "ports: [eth1]\nzzz: 1",
            "2:1: unknown key 'zzz'; it may be: big_tcp, control_socket, controllers, datapath_id, fail_mode, "
            "integrated_controller, listen, local, max_megaflows, name, plugins, ports, protocols, tls, lab",
        ),
        ("ports: [eth1]\nintegrated_controller: {apps: []}", "2:31: name at least one app, for example ryu_apps/l2_learning.py"),
        ("ports: [eth1]\nintegrated_controller: {app: [a]}", "2:25: unknown key 'app'; did you mean 'apps'?"),
        (
            "ports: [eth1]\nlisten: ['ptcp:6653:nohost']",
            "2:10: 'ptcp:6653:nohost': 'nohost' is not an IPv4 address or an IPv6 address in []",
        ),
        (
            "ports: [eth1]\nlisten: ['tcp:6653']",
            "2:10: 'tcp:6653' is not a place to listen; write ptcp:PORT or ptcp:PORT:ADDRESS (pssl: for TLS)",
        ),
        (
            "ports: [eth1]\nlisten: ['ptcp:']\ncontrollers: ['tcp:192.0.2.1', 'ssl:192.0.2.1']",
            "3:32: ssl:192.0.2.1:6653 needs tls: private_key, certificate and ca_certificate",
        ),
        ("ports: [eth1]\ntls: {private_key: a, certificate: b}", "2:6: 'ca_certificate' is missing"),
        (
            "ports: [eth1]\ntls: {private_key: a, certificate: b, ca_certificate: c, certificates: d}",
            "2:58: unknown key 'certificates'; did you mean 'certificate'?",
        ),
        (
            "ports: [{interface: eth1, queues: [{id: 1}, {id: 1}]}]",
            "1:35: two queues have the same id: 1",
        ),
        (
            "ports: [{interface: eth1, queues: [{id: 1, max_rate: fast}]}]",
            "1:54: 'fast' is not a rate; write bits a second (at least 8), for example 100M or 2.5G",
        ),
        (
            "ports: [{interface: eth1, queues: [{id: 1, max_rate: 1M, min_rate: 2M}]}]",
            "1:36: queue 1: min_rate 2000000 is more than max_rate 1000000",
        ),
        ("ports: [{interface: eth1, queues: [{id: 65530}]}]", "1:41: 65530 is not a queue's number; it must be 0 to 65520"),
        ("ports: [{interface: eth1, queues: [{minrate: 8, id: 1}]}]", "1:37: unknown key 'minrate'; did you mean 'min_rate'?"),
        (
            "ports: [eth1]\ncontrollers: [{target: 'tcp:192.0.2.1', auxiliary: 256}]",
            "2:52: 256 is not a number of auxiliary connections; it must be 0 to 255",
        ),
        (
            "ports: [eth1]\ncontrollers: [{target: 'udp:192.0.2.1'}]",
            "2:15: 'udp:192.0.2.1' is not a controller; write tcp:HOST or tcp:HOST:PORT (ssl: for TLS)",
        ),
        ("lab: {}", "1:1: 'lab' is for `ofswitch lab`, which makes its own ports; a switch's own file has 'ports'"),
    ],
)
def test_one_fault(write: Callable[[str], str], text: str, expected: str) -> None:
    assert faults(write(text)) == [f"x.yaml:{expected}"]


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nix\.yaml: cannot be read: No such file or directory"):
        load(str(tmp_path / "nix.yaml"))
    (tmp_path / "bytes.yaml").write_bytes(b"name: \xff")
    with pytest.raises(ConfigError, match=r"bytes\.yaml: is not UTF-8 text \(byte 6\)"):
        load(str(tmp_path / "bytes.yaml"))


@given(st.text(max_size=200))
def test_no_text_at_all_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8", errors="ignore")
    with pytest.raises(ConfigError):
        load(str(path))


def test_a_config_made_by_hand_is_checked_too() -> None:
    with pytest.raises(ValueError, match="two ports have the same number"):
        Config(ports=(PortSpec(interface="a", number=1), PortSpec(interface="b", number=1)))
    with pytest.raises(ValueError, match="two ports have the same interface"):
        Config(ports=(PortSpec(interface="a", number=1), PortSpec(interface="a", number=2)))
    with pytest.raises(ValueError, match="too many"):
        Config(ports=tuple(PortSpec(interface=f"p{n}") for n in range(4096)))
    config = Config()
    with pytest.raises(ValueError, match="frozen"):
        config.name = "other"  # type: ignore[misc]


# ── labs, and the files that we ship ───────────────────────────────────────────────────────────────────────────────────
def lab_faults(path: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load_lab(path)
    return [str(fault).replace(f"{Path(path).parent}/", "") for fault in raised.value.faults]


def test_lab_faults(write: Callable[[str], str]) -> None:
    path = write(
        """lab:
  hosts:
    - {name: h1, address4: 10.0.0.1/24, address6: fd00::1/64}
    - {name: h1, address4: 10.0.0.1/24, address6: fd00::2, mac: 01:00:00:00:00:00}
    - {name: longname, address4: fd00::3/64, addres6: fd00::3/64}
  transfer_mb: 0
  blocked_tcp_ports: [70000]
ports: [eth1]
fail_mode: no
"""
    )
    assert lab_faults(path) == [
        "x.yaml:4:14: name 'h1' is another host's already",
        "x.yaml:4:28: address4 '10.0.0.1/24' is another host's already",
        "x.yaml:4:51: 'fd00::2' is not an IPv6 address with its prefix length, for example fd00::1/64",
        "x.yaml:4:65: '01:00:00:00:00:00' is not a host's MAC address, for example 02:00:00:00:00:01",
        "x.yaml:5:7: 'address6' is missing",
        "x.yaml:5:14: 'longname' is not a host's name; use 1 to 4 letters and digits (it is part of an interface name)",
        "x.yaml:5:34: 'fd00::3/64' is not an IPv4 address with its prefix length, for example 10.0.0.1/24",
        "x.yaml:5:46: unknown key 'addres6'; did you mean 'address6'?",
        "x.yaml:6:16: 0 is not a number of megabytes; it must be 1 to 1000000",
        "x.yaml:7:22: '70000': '70000' is not a TCP port; it must be a number from 1 to 65535",
        "x.yaml:8:1: a lab makes its own ports, one for each of lab.hosts; take this out",
        "x.yaml:9:12: 'no' is not a fail mode; it may be: secure, standalone",
    ]


def test_a_lab_needs_its_section_and_two_hosts(write: Callable[[str], str]) -> None:
    assert lab_faults(write("name: a")) == [
        "x.yaml:1:1: there is no 'lab' section; it names the hosts: lab: {hosts: [{name: h1, ...}]}"
    ]
    path = write("lab: {hosts: [{name: h1, address4: 10.0.0.1/24, address6: fd00::1/64}]}")
    assert lab_faults(path) == ["x.yaml:1:14: a lab has 2 to 200 hosts, not 1"]


def test_the_lab_of_make_run() -> None:
    file = load_lab(str(CONFIGS / "lab.yaml"))
    assert file.lab.hosts[0] == LabHost(name="h1", address4="10.0.0.1/24", address6="fd00::1/64")
    assert len(file.lab.hosts) == 3
    assert file.lab.transfer_mb >= 1000
    assert [Path(app).name for app in file.config.integrated_apps] == ["l2_learning.py"]


def test_the_firewall_lab() -> None:
    file = load_lab(str(CONFIGS / "firewall.yaml"))
    assert [Path(app).name for app in file.config.integrated_apps] == ["firewall.py", "l2_learning.py"]
    assert file.lab.blocked_tcp_ports == (23,)


def test_the_example_for_a_switch_of_ones_own() -> None:
    config = load(str(CONFIGS / "switch.yaml"))
    assert [port.interface for port in config.ports] == ["eth1", "eth2"]
    assert not config.uses_integrated_controller


def test_no_shipped_file_is_without_a_test() -> None:
    assert {path.name for path in CONFIGS.glob("*.y*ml")} == {"lab.yaml", "firewall.yaml", "switch.yaml", "overlay.yaml"}

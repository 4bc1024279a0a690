"""Tunnel ports in the configuration: what is understood, what is refused and why."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.config import Config, ConfigError, PortSpec, TunnelOptions, dump, load
from appliance.model.tunnel import TunnelPort


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.yaml"


def written(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def port(path: Path, words: str) -> PortSpec:
    (port,) = load(written(path, f"ports: [{{interface: vx1, {words}}}]"), known_interfaces=lambda: ["vx1"]).ports
    return port


@pytest.mark.parametrize(
    ("words", "udp_port", "expected"),
    [
        ("type: vxlan, options: {remote_ip: flow}", 4789, TunnelPort(key=0)),
        ("type: geneve, options: {remote_ip: flow, key: flow}", 6081, TunnelPort()),
        ("type: gre, options: {remote_ip: flow}", 0, TunnelPort(key=0, keyless=True)),
        ("type: gre, options: {remote_ip: flow, key: 0}", 0, TunnelPort(key=0)),
        ("type: gre, options: {remote_ip: flow, key: 0xffffffff}", 0, TunnelPort(key=0xFFFFFFFF)),
        (
            "type: vxlan, options: {remote_ip: 192.0.2.2, local_ip: 192.0.2.1, key: 42, dst_port: 8472}",
            8472,
            TunnelPort(remote=IPv4Address("192.0.2.2"), local=IPv4Address("192.0.2.1"), key=42),
        ),
        (
            "type: vxlan, options: {remote_ip: flow, key: flow, df_default: false, csum: true, ttl: inherit, tos: inherit}",
            4789,
            TunnelPort(dont_fragment=False, checksum=True, ttl=None, tos=None),
        ),
        ("type: vxlan, options: {remote_ip: flow, ttl: 1, tos: 0xb8}, hook: tc", 4789, TunnelPort(key=0, ttl=1, tos=0xB8)),
        (
            "type: vxlan, options: {remote_ip: '2001:db8::2'}",
            4789,
            TunnelPort(remote=IPv6Address("2001:db8::2"), key=0, checksum=True),
        ),
        (
            "type: vxlan, options: {remote_ip: '2001:db8::2', csum: false}",
            4789,
            TunnelPort(remote=IPv6Address("2001:db8::2"), key=0),
        ),
    ],
)
def test_options(path: Path, words: str, udp_port: int, expected: TunnelPort) -> None:
    spec = port(path, words)
    assert spec.type != "system"
    assert spec.tunnel is not None
    assert spec.tunnel.udp_port(spec.type) == udp_port
    assert spec.tunnel.port(spec.type) == expected


NO_REMOTE = "a tunnel port needs the option remote_ip: an IP address, or flow: flow entries say it"


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ("type: vxln", "1:32: 'vxln' is not a type; did you mean 'vxlan'?"),
        ("type: vxlan", f"1:9: {NO_REMOTE}"),
        ("type: gre, options: {}", f"1:46: {NO_REMOTE}"),
        ("type: vxlan, options: {local_ip: 192.0.2.1, key: 7}", f"1:48: {NO_REMOTE}"),
        ("options: {key: 1}", "1:35: options are for tunnels; add a type: vxlan, geneve or gre"),
        ("type: vxlan, options: {remote: 192.0.2.1}", "1:49: unknown key 'remote'; did you mean 'remote_ip'?"),
        (
            "type: vxlan, options: {remote_ip: 192.0.2}",
            "1:60: '192.0.2' is not the address of a tunnel's end; write an IP address, or flow: flow entries say it",
        ),
        (
            "type: vxlan, options: {remote_ip: 224.0.0.1}",
            "1:60: '224.0.0.1' is not the address of a tunnel's end; write an IP address, or flow: flow entries say it",
        ),
        (
            "type: vxlan, options: {remote_ip: 192.0.2.1, local_ip: '2001:db8::1'}",
            "1:48: remote_ip 192.0.2.1 and local_ip 2001:db8::1 are not of one version of IP",
        ),
        (
            "type: vxlan, options: {remote_ip: flow, local_ip: '2001:db8::1'}",
            "1:48: local_ip 2001:db8::1 needs a remote_ip of IPv6: what flow entries say is IPv4",
        ),
        (
            "type: vxlan, options: {key: red}",
            "1:54: 'red' is not a key (VNI); write a number from 0 to 4294967295, or flow: flow entries say it, by tunnel_id",
        ),
        (
            "type: geneve, options: {remote_ip: flow, key: 0x1000000}",
            "1:49: key 16777216 is too large: geneve has 24 bits, it must be at most 16777215",
        ),
        ("type: gre, options: {remote_ip: flow, dst_port: 4789}", "1:46: dst_port 4789: gre has no UDP port; take this out"),
        ("type: vxlan, options: {dst_port: 0}", "1:59: 0 is not a UDP port; it must be 1 to 65535"),
        (
            "type: vxlan, options: {ttl: 0}",
            "1:54: 0 is not a TTL; write a number from 1 to 255, or inherit: the packet's own, where it has one",
        ),
        (
            "type: vxlan, options: {tos: 256}",
            "1:54: 256 is not a type of service; write a number from 0 to 255, or inherit: the packet's own DSCP",
        ),
        (
            "type: gre, options: {remote_ip: flow, csum: true}",
            "1:46: csum: Linux takes in no GRE packet with a checksum where a device is for all tunnels; take this out",
        ),
        ("type: vxlan, options: {csum: maybe}", "1:55: 'csum' must be true or false, not text ('maybe')"),
        (
            "type: gre, options: {remote_ip: flow}, hook: xdp-generic",
            "1:71: XDP knows no tunnels: a tunnel port is met at tc; take this out",
        ),
        (
            "type: vxlan, options: {remote_ip: flow}, hook: xdp",
            "1:73: XDP knows no tunnels: a tunnel port is met at tc; take this out",
        ),
        (
            "type: vxlan, options: {remote_ip: flow}, queues: [{id: 1}]",
            "1:75: a tunnel port has no queues; packets keep theirs on the interface that the tunnel leaves by",
        ),
    ],
)
def test_faults(path: Path, words: str, fault: str) -> None:
    with pytest.raises(ConfigError) as refused:
        port(path, words)
    assert [str(item).removeprefix(f"{path}:") for item in refused.value.faults] == [fault]


def test_two_ports_are_not_the_same_end(path: Path) -> None:
    text = """\
ports:
  - {interface: vx1, type: vxlan, options: {remote_ip: 192.0.2.2}}
  - {interface: vx2, type: vxlan, options: {remote_ip: 192.0.2.3}}
  - {interface: vx3, type: vxlan, options: {remote_ip: 192.0.2.2, key: 1}}
  - {interface: vx4, type: geneve, options: {remote_ip: 192.0.2.2}}
  - {interface: vx5, type: vxlan, options: {remote_ip: 192.0.2.2, dst_port: 4789, ttl: 7, key: 0}}
"""
    with pytest.raises(ConfigError) as refused:
        load(written(path, text))
    (fault,) = refused.value.faults
    assert str(fault) == f"{path}:6:5: vx5 and vx1 are the same end: of one remote_ip, local_ip, key and UDP port"


def test_hooks_of_a_flag_are_not_for_tunnels(path: Path) -> None:
    name = written(path, "ports: [eth1, {interface: vx1, type: vxlan, options: {remote_ip: flow}}]")
    assert [port.hook for port in load(name, {"hook": "xdp"}).ports] == ["xdp", "auto"]


addresses = st.just("flow") | st.sampled_from(("192.0.2.1", "192.0.2.2"))


@given(
    kind=st.sampled_from(("vxlan", "geneve")),
    options=st.builds(
        TunnelOptions,
        remote_ip=addresses,
        local_ip=addresses,
        key=st.none() | st.just("flow") | st.integers(0, 0xFFFFFF),
        dst_port=st.none() | st.integers(1, 65535),
        df_default=st.booleans(),
        csum=st.none() | st.booleans(),
        ttl=st.just("inherit") | st.integers(1, 255),
        tos=st.just("inherit") | st.integers(0, 255),
    ),
)
def test_what_is_dumped_is_read_back(tmp_path_factory: pytest.TempPathFactory, kind: str, options: TunnelOptions) -> None:
    config = Config(ports=(PortSpec(interface="vx1", number=3, type=kind, options=options), PortSpec(interface="eth1", number=1)))
    path = tmp_path_factory.mktemp("dump") / "x.yaml"
    again = load(written(path, dump(config)))
    assert [port.tunnel for port in again.ports] == [port.tunnel for port in config.ports]
    assert again.model_copy(update={"ports": ()}) == config.model_copy(update={"ports": ()})


def test_the_example_of_an_overlay() -> None:
    config = load(str(Path(__file__).parents[2] / "configs" / "overlay.yaml"))
    assert [(port.number, port.interface, port.type) for port in config.ports] == [
        (1, "eth1", "system"),
        (2, "eth2", "system"),
        (3, "vx1", "vxlan"),
    ]
    assert config.ports[2].tunnel == TunnelOptions(remote_ip="192.0.2.2", key=42)

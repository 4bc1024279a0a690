"""ryu_apps/firewall.py: reading rules, and what it tells a switch."""

from __future__ import annotations

import importlib.util
import sys
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from os_ken.base import app_manager  # first: os-ken's own import order
from os_ken.ofproto import ofproto_v1_3, ofproto_v1_3_parser

ROOT = Path(__file__).parents[2]


def load(name: str) -> Any:
    """An app of ryu_apps as a module."""
    spec = importlib.util.spec_from_file_location(f"ryu_apps_{name}", ROOT / "ryu_apps" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


firewall = load("firewall")
Rule = firewall.Rule


class Switch:
    """A connection to a switch that keeps what it is sent."""

    ofproto = ofproto_v1_3
    ofproto_parser = ofproto_v1_3_parser
    id = 1

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def set_xid(self, message: Any) -> None:
        message.set_xid(len(self.sent) + 1000 + id(message) % 1000000)

    def send_msg(self, message: Any) -> None:
        message.serialize()
        self.sent.append(message)

    def event(self, **message: Any) -> Any:
        return SimpleNamespace(msg=SimpleNamespace(datapath=self, **message))


def read(tmp_path: Path, text: str) -> list[Any]:
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    return firewall.read_rules(path)


def faults(tmp_path: Path, text: str) -> list[str]:
    """``line: text`` of each fault."""
    with pytest.raises(firewall.BadRules) as caught:
        read(tmp_path, text)
    prefix = f"{tmp_path / 'rules.yaml'}:"
    lines = str(caught.value).splitlines()
    assert all(line.startswith(prefix) for line in lines)
    return [line.removeprefix(prefix) for line in lines]


# ── reading ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_rules_are_read_in_order(tmp_path):
    assert read(
        tmp_path,
        "rules:\n"
        "  - {action: deny, src: 192.0.2.0/24, dst: 198.51.100.7, protocol: tcp, src_port: 1, dst_port: 65535}\n"
        "  - {action: allow, dst: '2001:db8::/32', protocol: icmp}\n"
        "  - {action: deny, protocol: 17, dst_port: 53}\n"
        "  - {action: deny, protocol: 47}\n"
        "  - action: allow\n",
    ) == [
        Rule(True, ip_network("192.0.2.0/24"), ip_network("198.51.100.7/32"), "tcp", 1, 65535),
        Rule(False, None, ip_network("2001:db8::/32"), "icmp"),
        Rule(True, None, None, "udp", None, 53),
        Rule(True, None, None, 47),
        Rule(False),
    ]


def test_no_rules_is_a_list_too(tmp_path):
    assert read(tmp_path, "rules: []\n") == []


def test_the_example_that_is_shipped_is_right():
    assert len(firewall.read_rules(ROOT / "ryu_apps" / "firewall.yaml")) == 5


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        ("{}", "'action' must be deny or allow"),
        ("{action: drop}", "'action' must be deny or allow"),
        ("{action: [deny]}", "'action' must be one value, not a list or a mapping"),
        ("7", "a rule must be a mapping with the keys action, src, dst, protocol, src_port, dst_port"),
        ("{action: deny, port: 1}", "unknown key 'port'; known are action, src, dst, protocol, src_port, dst_port"),
        ("{action: deny, action: allow}", "'action' is there twice; leave one"),
        ("{action: deny, src: here}", "'src: here' is no address prefix; write one as 192.0.2.0/24 or 2001:db8::/32"),
        (
            "{action: deny, dst: 10.0.0.1/8}",
            "'dst: 10.0.0.1/8' is no address prefix; it has bits set behind its length; write 10.0.0.0/8",
        ),
        ("{action: deny, src: 10.0.0.0/8, dst: '::1'}", "src is IPv4 and dst IPv6; both must be of one family"),
        ("{action: deny, protocol: gre}", "'protocol: gre' must be tcp, udp, sctp, icmp or a number from 0 to 255"),
        ("{action: deny, protocol: 256}", "'protocol: 256' must be tcp, udp, sctp, icmp or a number from 0 to 255"),
        ("{action: deny, dst_port: 5}", "'dst_port' needs  protocol: tcp, udp or sctp"),
        ("{action: deny, protocol: icmp, src_port: 5}", "'src_port' needs  protocol: tcp, udp or sctp"),
        ("{action: deny, protocol: tcp, src_port: 0}", "'src_port: 0' must be a number from 1 to 65535"),
        ("{action: deny, protocol: tcp, dst_port: 65536}", "'dst_port: 65536' must be a number from 1 to 65535"),
    ],
)
def test_a_bad_rule_is_told_with_its_line(tmp_path, rule, fault):
    assert fault in [text.removeprefix("3: ") for text in faults(tmp_path, f"rules:\n  - action: deny\n  - {rule}\n")]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "1: the file must be a mapping with the keys rules"),
        ("- 1\n", "1: the file must be a mapping with the keys rules"),
        ("rulez: []\n", "1: unknown key 'rulez'; known are rules"),
        ("\nrules: 3\n", "2: 'rules' must be a list, as in  rules: [{action: deny, protocol: tcp, dst_port: 23}]"),
        ("rules:\n  - {action: deny\n", "3: not YAML: expected ',' or '}', but got '<stream end>'"),
        (
            "rules: \x01\n",
            '1: not YAML: unacceptable character #x0001: special characters are not allowed in "<unicode string>", position 7',
        ),
    ],
)
def test_a_file_that_is_none_is_told_with_its_line(tmp_path, text, fault):
    assert fault in faults(tmp_path, text)


def test_all_faults_are_told_at_once(tmp_path):
    text = "rules:\n  - {action: x}\n  - {action: deny, src: x, dst: y, protocol: z, src_port: p, dst_port: q, foo: 1}\n"
    assert [line.split(":")[0] for line in faults(tmp_path, text)] == ["2", "3", "3", "3", "3", "3", "3"]


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(
        firewall.BadRules, match=r"nosuch.yaml:1: No such file or directory; name the file .* in OFSWITCH_FIREWALL_RULES"
    ):
        firewall.read_rules(tmp_path / "nosuch.yaml")


# ── matches ────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        (Rule(True), [{"eth_type": 0x800}, {"eth_type": 0x86DD}]),
        (
            Rule(True, protocol="tcp", dst_port=23),
            [{"eth_type": 0x800, "ip_proto": 6, "tcp_dst": 23}, {"eth_type": 0x86DD, "ip_proto": 6, "tcp_dst": 23}],
        ),
        (Rule(True, protocol="icmp"), [{"eth_type": 0x800, "ip_proto": 1}, {"eth_type": 0x86DD, "ip_proto": 58}]),
        (
            Rule(True, src=ip_network("192.0.2.0/24"), protocol=47),
            [{"eth_type": 0x800, "ip_proto": 47, "ipv4_src": ("192.0.2.0", "255.255.255.0")}],
        ),
        (
            Rule(True, dst=ip_network("2001:db8::/32"), protocol="sctp", src_port=9),
            [{"eth_type": 0x86DD, "ip_proto": 132, "ipv6_dst": ("2001:db8::", "ffff:ffff::"), "sctp_src": 9}],
        ),
    ],
)
def test_a_rule_is_a_match_for_each_ip_version(rule, matches):
    assert rule.matches() == matches


# ── the app ────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture
def app(tmp_path, monkeypatch):
    path = tmp_path / "rules.yaml"
    rules = ("{action: deny, protocol: tcp, dst_port: 23}", "{action: allow, src: 10.0.0.0/8}", "{action: deny, src: 0.0.0.0/0}")
    path.write_text(f"rules: [{', '.join(rules)}]\n")
    monkeypatch.setenv("OFSWITCH_FIREWALL_RULES", str(path))
    return firewall.Firewall()


def flow_mods(switch: Switch) -> list[tuple[str, int, int, int | None]]:
    """(command, table, priority, table of goto) of what was sent."""
    commands = {ofproto_v1_3.OFPFC_ADD: "add", ofproto_v1_3.OFPFC_DELETE: "delete"}
    return [
        (
            commands[message.command],
            message.table_id,
            message.priority,
            message.instructions[0].table_id if message.instructions else None,
        )
        for message in switch.sent
        if isinstance(message, ofproto_v1_3_parser.OFPFlowMod)
    ]


def test_the_first_rule_has_the_highest_priority_and_the_rest_is_let_through_last_of_all(app):
    switch = Switch()
    app.switch_features(switch.event())
    assert flow_mods(switch) == [
        ("delete", 0, ofproto_v1_3.OFP_DEFAULT_PRIORITY, None),
        ("add", 0, 65535, None),
        ("add", 0, 65535, None),
        ("add", 0, 65534, 1),
        ("add", 0, 65533, None),
        ("add", 0, 0, 1),
    ]
    assert isinstance(switch.sent[-1], ofproto_v1_3_parser.OFPBarrierRequest)


def test_a_switch_that_refuses_a_rule_gets_none(app):
    switch = Switch()
    app.switch_features(switch.event())
    refused = switch.sent[2]
    del switch.sent[:]
    app.refused(switch.event(xid=refused.xid, type=5, code=1))
    assert flow_mods(switch) == [("delete", 0, ofproto_v1_3.OFP_DEFAULT_PRIORITY, None)]


def test_another_apps_error_changes_nothing(app):
    switch = Switch()
    app.switch_features(switch.event())
    del switch.sent[:]
    app.refused(switch.event(xid=1, type=5, code=1))
    assert switch.sent == []


def test_once_in_force_it_says_so(app, caplog):
    switch = Switch()
    app.switch_features(switch.event())
    with caplog.at_level("INFO"):
        app.in_force(switch.event(xid=switch.sent[-1].xid))
    assert "3 rules of" in caplog.text
    assert "are in force" in caplog.text


def test_the_learning_switch_goes_behind_it(app, monkeypatch):
    learning = SimpleNamespace(table_id=0)
    monkeypatch.setitem(app_manager.SERVICE_BRICKS, "L2Learning", learning)
    monkeypatch.setattr(firewall.App, "start", lambda self: None)
    app.start()
    assert learning.table_id == firewall.NEXT_TABLE

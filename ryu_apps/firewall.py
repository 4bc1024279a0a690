"""A firewall before the learning switch, as a plain Ryu app (OpenFlow 1.3): blocks by addresses, protocol and ports.

It owns table 0: a rule is a flow entry there that drops or goes on to table 1, where l2_learning.py (loaded beside it) then
works. Invariant: a switch has all rules or forwards nothing; a file with any fault keeps the controller from starting, and
every fault is told at once. Rules come from the YAML file that OFSWITCH_FIREWALL_RULES names, else from firewall.yaml beside this
file, which says how to write them. Runs under stock Ryu and stock os-ken.
"""

try:
    from ryu.base import app_manager
    from ryu.controller import ofp_event
    from ryu.controller.handler import CONFIG_DISPATCHER, DEAD_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
    from ryu.ofproto import ofproto_v1_3
except ImportError:
    from os_ken.base import app_manager
    from os_ken.controller import ofp_event
    from os_ken.controller.handler import CONFIG_DISPATCHER, DEAD_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
    from os_ken.ofproto import ofproto_v1_3

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

import yaml

App = getattr(app_manager, "RyuApp", None) or app_manager.OSKenApp

RULES_VARIABLE = "OFSWITCH_FIREWALL_RULES"
TABLE_ID = 0
NEXT_TABLE = 1
TOP_PRIORITY = 0xFFFF
MAX_RULES = 60000
COOKIE = 0x6677_0000_0000_0000  # "fw"

PORT_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
ICMP, ICMPV6 = 1, 58
ETH_TYPES = {4: 0x0800, 6: 0x86DD}


# ── rules ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
class BadRules(Exception):  # noqa: N818  a judgement on a file, not an error of this program
    """The text has one line for each fault: ``file:line: what is wrong; what is right``."""


@dataclass(frozen=True)
class Rule:
    """``protocol`` is a name of PORT_PROTOCOLS, "icmp" or a number; None leaves a field open."""

    deny: bool
    src: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None
    dst: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None
    protocol: str | int | None = None
    src_port: int | None = None
    dst_port: int | None = None

    def matches(self) -> list[dict]:
        """The OFPMatch fields of its flow entries: one for each IP version that it is for."""
        network = self.src or self.dst
        return [self._match(version) for version in ([network.version] if network else ETH_TYPES)]

    def _match(self, version: int) -> dict:
        fields: dict = {"eth_type": ETH_TYPES[version]}
        for name, network in (("src", self.src), ("dst", self.dst)):
            if network is not None:
                fields[f"ipv{version}_{name}"] = (str(network.network_address), str(network.netmask))
        if self.protocol == "icmp":
            fields["ip_proto"] = ICMP if version == 4 else ICMPV6
        elif self.protocol is not None:
            fields["ip_proto"] = PORT_PROTOCOLS.get(self.protocol, self.protocol)
        for name, port in (("src", self.src_port), ("dst", self.dst_port)):
            if port is not None:
                fields[f"{self.protocol}_{name}"] = port
        return fields


class _Reader:
    """One pass over a file's YAML nodes, which know their lines. Values are read as they are written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.faults: list[str] = []

    def fault(self, line: int, text: str) -> None:
        self.faults.append(f"{self.path}:{line}: {text}")

    def rules(self) -> list[Rule]:
        try:
            root = yaml.compose(self.path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        except OSError as error:
            self.fault(1, f"{error.strerror}; name the file of the firewall's rules in {RULES_VARIABLE}")
            return []
        except UnicodeDecodeError:
            self.fault(1, "not a text file in UTF-8")
            return []
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self.fault(mark.line + 1 if mark else 1, f"not YAML: {error.problem}")
            return []
        except yaml.YAMLError as error:
            self.fault(1, f"not YAML: {' '.join(str(error).split())}")
            return []
        members = self.mapping(root, ("rules",), "the file")
        if members is None:
            return []
        listing = members.get("rules")
        if not isinstance(listing, yaml.SequenceNode):
            line = 1 if listing is None else listing.start_mark.line + 1
            self.fault(line, "'rules' must be a list, as in  rules: [{action: deny, protocol: tcp, dst_port: 23}]")
            return []
        if len(listing.value) > MAX_RULES:
            self.fault(listing.start_mark.line + 1, f"{len(listing.value)} rules; at most {MAX_RULES} have a priority each")
        return [rule for node in listing.value if (rule := self.rule(node)) is not None]

    def mapping(self, node: yaml.Node | None, known: tuple[str, ...], what: str) -> dict[str, yaml.Node] | None:
        line = 1 if node is None else node.start_mark.line + 1
        if not isinstance(node, yaml.MappingNode):
            self.fault(line, f"{what} must be a mapping with the keys {', '.join(known)}")
            return None
        members: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if key.value not in known:
                self.fault(key.start_mark.line + 1, f"unknown key '{key.value}'; known are {', '.join(known)}")
            elif key.value in members:
                self.fault(key.start_mark.line + 1, f"'{key.value}' is there twice; leave one")
            else:
                members[key.value] = value
        return members

    def rule(self, node: yaml.Node) -> Rule | None:
        """None if it has a fault."""
        before = len(self.faults)
        line = node.start_mark.line + 1
        members = self.mapping(node, ("action", "src", "dst", "protocol", "src_port", "dst_port"), "a rule")
        if members is None:
            return None
        action = self.text(members, "action")
        if action not in ("deny", "allow"):
            self.fault(line if action is None else self.line(members, "action"), "'action' must be deny or allow")
        src, dst = self.network(members, "src"), self.network(members, "dst")
        if src and dst and src.version != dst.version:
            self.fault(self.line(members, "dst"), f"src is IPv{src.version} and dst IPv{dst.version}; both must be of one family")
        protocol = self.protocol(members)
        src_port, dst_port = self.port(members, "src_port"), self.port(members, "dst_port")
        for name in ("src_port", "dst_port"):
            if name in members and protocol not in PORT_PROTOCOLS and ("protocol" not in members or protocol is not None):
                self.fault(self.line(members, name), f"'{name}' needs  protocol: tcp, udp or sctp")
        if len(self.faults) > before:
            return None
        return Rule(action == "deny", src, dst, protocol, src_port, dst_port)

    def line(self, members: dict[str, yaml.Node], name: str) -> int:
        return members[name].start_mark.line + 1

    def text(self, members: dict[str, yaml.Node], name: str) -> str | None:
        """A scalar as it is written; None if it is missing or (a fault) is none."""
        node = members.get(name)
        if node is None:
            return None
        if not isinstance(node, yaml.ScalarNode):
            self.fault(self.line(members, name), f"'{name}' must be one value, not a list or a mapping")
            return None
        return node.value

    def network(self, members: dict[str, yaml.Node], name: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
        text = self.text(members, name)
        if text is None:
            return None
        try:
            return ipaddress.ip_network(text)
        except ValueError:
            try:
                hint = f"it has bits set behind its length; write {ipaddress.ip_network(text, strict=False)}"
            except ValueError:
                hint = "write one as 192.0.2.0/24 or 2001:db8::/32"
            self.fault(self.line(members, name), f"'{name}: {text}' is no address prefix; {hint}")
            return None

    def protocol(self, members: dict[str, yaml.Node]) -> str | int | None:
        text = self.text(members, "protocol")
        if text is None or text in PORT_PROTOCOLS or text == "icmp":
            return text
        if text.isascii() and text.isdecimal() and int(text) <= 255:
            names = {number: name for name, number in PORT_PROTOCOLS.items()}
            return names.get(int(text), int(text))
        self.fault(self.line(members, "protocol"), f"'protocol: {text}' must be tcp, udp, sctp, icmp or a number from 0 to 255")
        return None

    def port(self, members: dict[str, yaml.Node], name: str) -> int | None:
        text = self.text(members, name)
        if text is None:
            return None
        if text.isascii() and text.isdecimal() and 1 <= int(text) <= 65535:
            return int(text)
        self.fault(self.line(members, name), f"'{name}: {text}' must be a number from 1 to 65535")
        return None


def read_rules(path: Path) -> list[Rule]:
    """The rules of a file, in order; raises BadRules with every fault."""
    reader = _Reader(path)
    rules = reader.rules()
    if reader.faults:
        raise BadRules("\n".join(reader.faults))
    return rules


# ── the app ────────────────────────────────────────────────────────────────────────────────────────────────────────────
class Firewall(App):
    OFP_VERSIONS = [ofproto_v1_3.OFP_VERSION]  # noqa: RUF012  Ryu's own way to say it

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.path = Path(os.environ.get(RULES_VARIABLE) or Path(__file__).with_name("firewall.yaml"))
        self.rules = read_rules(self.path)
        self.pending = {}  # {connection to a switch: (xids of the flow-mods sent, xid of the barrier behind them)}

    def start(self):
        learning = app_manager.lookup_service_brick("L2Learning")
        if learning is None:
            self.logger.warning("no l2_learning.py is loaded: some app must fill table %d, or nothing is forwarded", NEXT_TABLE)
        else:
            learning.table_id = NEXT_TABLE
        return super().start()

    @set_ev_cls(ofp_event.EventOFPSwitchFeatures, CONFIG_DISPATCHER)
    def switch_features(self, ev):
        """Empty the table, then fill it. The entry that lets the rest through comes last: until then it is dropped."""
        datapath = ev.msg.datapath
        parser = datapath.ofproto_parser
        on = [parser.OFPInstructionGotoTable(NEXT_TABLE)]
        messages = [self.empty_table(datapath)]
        for place, rule in enumerate(self.rules):
            messages += [
                self.flow(datapath, TOP_PRIORITY - place, parser.OFPMatch(**fields), [] if rule.deny else on)
                for fields in rule.matches()
            ]
        messages.append(self.flow(datapath, 0, parser.OFPMatch(), on))
        barrier = parser.OFPBarrierRequest(datapath)
        for message in (*messages, barrier):
            datapath.set_xid(message)
        self.pending[datapath] = ({message.xid for message in messages}, barrier.xid)
        for message in (*messages, barrier):
            datapath.send_msg(message)

    @set_ev_cls(ofp_event.EventOFPErrorMsg, [CONFIG_DISPATCHER, MAIN_DISPATCHER])
    def refused(self, ev):
        """The switch refused a rule (no room, perhaps): rather than some of the rules it gets none, and forwards nothing."""
        datapath = ev.msg.datapath
        sent, _ = self.pending.get(datapath, (set(), None))
        if ev.msg.xid in sent:
            del self.pending[datapath]
            self.logger.error(
                "datapath %016x refused a rule of %s (OFPT_ERROR type %d code %d): it forwards nothing now",
                datapath.id,
                self.path,
                ev.msg.type,
                ev.msg.code,
            )
            datapath.send_msg(self.empty_table(datapath))

    @set_ev_cls(ofp_event.EventOFPBarrierReply, [CONFIG_DISPATCHER, MAIN_DISPATCHER])
    def in_force(self, ev):
        datapath = ev.msg.datapath
        _, barrier = self.pending.get(datapath, (set(), None))
        if ev.msg.xid == barrier:
            del self.pending[datapath]
            self.logger.info("datapath %016x: %d rules of %s are in force", datapath.id, len(self.rules), self.path)

    @set_ev_cls(ofp_event.EventOFPStateChange, DEAD_DISPATCHER)
    def switch_gone(self, ev):
        self.pending.pop(ev.datapath, None)

    # ── flow-mods ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def flow(self, datapath, priority, match, instructions):
        return datapath.ofproto_parser.OFPFlowMod(
            datapath=datapath, cookie=COOKIE, table_id=TABLE_ID, priority=priority, match=match, instructions=instructions
        )

    def empty_table(self, datapath):
        ofproto = datapath.ofproto
        return datapath.ofproto_parser.OFPFlowMod(
            datapath=datapath,
            command=ofproto.OFPFC_DELETE,
            table_id=TABLE_ID,
            out_port=ofproto.OFPP_ANY,
            out_group=ofproto.OFPG_ANY,
            match=datapath.ofproto_parser.OFPMatch(),
        )

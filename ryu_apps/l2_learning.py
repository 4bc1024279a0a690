"""A learning switch for any number of datapaths, as a plain Ryu app (OpenFlow 1.3).

A frame to a known address gets a flow entry on (in_port, eth_src, eth_dst); any other is flooded by packet-out, so that the
controller sees each address before a flow entry hides it. Invariant: no flow entry of this app sends frames to a port where
the address was not last seen. Runs under stock Ryu and stock os-ken.
"""

try:
    from ryu.base import app_manager
    from ryu.controller import ofp_event
    from ryu.controller.handler import CONFIG_DISPATCHER, DEAD_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
    from ryu.lib.mac import haddr_to_str
    from ryu.ofproto import ofproto_v1_3
except ImportError:
    from os_ken.base import app_manager
    from os_ken.controller import ofp_event
    from os_ken.controller.handler import CONFIG_DISPATCHER, DEAD_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
    from os_ken.lib.mac import haddr_to_str
    from os_ken.ofproto import ofproto_v1_3

App = getattr(app_manager, "RyuApp", None) or app_manager.OSKenApp

TABLE_ID = 0
"""Where the flow entries go. An app that puts its own before them (firewall.py) sets ``table_id`` before a switch connects."""

IDLE_TIMEOUT = 60
HARD_TIMEOUT = 0
PRIORITY = 1
COOKIE = 0x6C32_0000_0000_0000  # "l2": tells this app's flow entries from others'
COOKIE_MASK = 0xFFFF_0000_0000_0000
MAX_ADDRESSES = 65536
"""Addresses remembered for one datapath. One more pushes out the oldest: a flood of forged addresses costs no more memory."""

ETHERNET_HEADER = 14
ETH_TYPE_LLDP = 0x88CC
LINK_LOCAL = bytes.fromhex("0180c20000")
"""Frames to 01:80:c2:00:00:00 to 0f (spanning tree, LACP, pause, LLDP) stay on their link (IEEE 802.1Q, table 8-1)."""


class L2Learning(App):
    OFP_VERSIONS = [ofproto_v1_3.OFP_VERSION]  # noqa: RUF012  Ryu's own way to say it

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.table_id = TABLE_ID
        self.ports = {}  # {connection to a switch: {eth_src as bytes: port number}}

    # ── a switch comes and goes ────────────────────────────────────────────────────────────────────────────────────────
    @set_ev_cls(ofp_event.EventOFPSwitchFeatures, CONFIG_DISPATCHER)
    def switch_features(self, ev):
        """Begin from nothing: flow entries of an earlier run would hide moves that this run has not seen."""
        datapath = ev.msg.datapath
        ofproto, parser = datapath.ofproto, datapath.ofproto_parser
        self.ports[datapath] = {}
        self.delete_flows(datapath, parser.OFPMatch(), table_id=ofproto.OFPTT_ALL)
        to_controller = [parser.OFPActionOutput(ofproto.OFPP_CONTROLLER, ofproto.OFPCML_NO_BUFFER)]
        self.add_flow(datapath, parser.OFPMatch(), to_controller, priority=0, idle_timeout=0)

    @set_ev_cls(ofp_event.EventOFPStateChange, DEAD_DISPATCHER)
    def switch_gone(self, ev):
        self.ports.pop(ev.datapath, None)

    @set_ev_cls(ofp_event.EventOFPPortStatus, MAIN_DISPATCHER)
    def port_status(self, ev):
        """Whoever was behind a port that is gone or down is looked for anew."""
        msg = ev.msg
        datapath, ofproto, parser = msg.datapath, msg.datapath.ofproto, msg.datapath.ofproto_parser
        down = msg.desc.state & ofproto.OFPPS_LINK_DOWN or msg.desc.config & ofproto.OFPPC_PORT_DOWN
        if msg.reason != ofproto.OFPPR_DELETE and not down:
            return
        learned = self.ports[datapath]
        gone = [address for address, port in learned.items() if port == msg.desc.port_no]
        for address in gone:
            del learned[address]
        self.delete_flows(datapath, parser.OFPMatch(), out_port=msg.desc.port_no)
        self.delete_flows(datapath, parser.OFPMatch(in_port=msg.desc.port_no))

    # ── a frame ────────────────────────────────────────────────────────────────────────────────────────────────────────
    @set_ev_cls(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)
    def packet_in(self, ev):
        msg = ev.msg
        frame = msg.data
        if len(frame) < ETHERNET_HEADER or msg.table_id != self.table_id:
            return
        eth_dst, eth_src = bytes(frame[0:6]), bytes(frame[6:12])
        eth_type = int.from_bytes(frame[12:14], "big")
        if eth_type == ETH_TYPE_LLDP or (eth_dst[:5] == LINK_LOCAL and eth_dst[5] < 16) or eth_src[0] & 1:
            return

        datapath, ofproto, parser = msg.datapath, msg.datapath.ofproto, msg.datapath.ofproto_parser
        in_port = msg.match["in_port"]
        self.learn(datapath, eth_src, in_port)
        out_port = None if eth_dst[0] & 1 else self.ports[datapath].get(eth_dst)
        if out_port is None:
            actions = [parser.OFPActionOutput(ofproto.OFPP_FLOOD)]
        else:
            # A frame to someone behind the port it came from has been heard there: the flow entry drops the rest of them.
            actions = [] if out_port == in_port else [parser.OFPActionOutput(out_port)]
            match = parser.OFPMatch(in_port=in_port, eth_src=haddr_to_str(eth_src), eth_dst=haddr_to_str(eth_dst))
            self.add_flow(datapath, match, actions)
        if actions or msg.buffer_id != ofproto.OFP_NO_BUFFER:
            data = msg.data if msg.buffer_id == ofproto.OFP_NO_BUFFER else None
            datapath.send_msg(
                parser.OFPPacketOut(datapath=datapath, buffer_id=msg.buffer_id, in_port=in_port, actions=actions, data=data)
            )

    def learn(self, datapath, address, port):
        """Remember that ``address`` is behind ``port``; if it was elsewhere, what the switch does with it is out of date."""
        learned = self.ports[datapath]
        before = learned.get(address)
        if before == port:
            return
        if before is not None:
            self.logger.info("datapath %016x: %s moved from port %s to port %s", datapath.id, haddr_to_str(address), before, port)
            self.forget(datapath, address)
        elif len(learned) >= MAX_ADDRESSES:
            self.forget(datapath, next(iter(learned)))
        learned[address] = port

    def forget(self, datapath, address):
        """Drop ``address`` from memory and from the switch."""
        del self.ports[datapath][address]
        text = haddr_to_str(address)
        self.delete_flows(datapath, datapath.ofproto_parser.OFPMatch(eth_dst=text))
        self.delete_flows(datapath, datapath.ofproto_parser.OFPMatch(eth_src=text))

    # ── flow-mods ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def add_flow(self, datapath, match, actions, priority=PRIORITY, idle_timeout=IDLE_TIMEOUT):
        ofproto, parser = datapath.ofproto, datapath.ofproto_parser
        datapath.send_msg(
            parser.OFPFlowMod(
                datapath=datapath,
                cookie=COOKIE,
                table_id=self.table_id,
                priority=priority,
                idle_timeout=idle_timeout,
                hard_timeout=HARD_TIMEOUT,
                match=match,
                instructions=[parser.OFPInstructionActions(ofproto.OFPIT_APPLY_ACTIONS, actions)],
            )
        )

    def delete_flows(self, datapath, match, table_id=None, out_port=None):
        """Delete this app's flow entries that lie within ``match`` (the table-miss entry lies within none but the empty one)."""
        ofproto, parser = datapath.ofproto, datapath.ofproto_parser
        datapath.send_msg(
            parser.OFPFlowMod(
                datapath=datapath,
                command=ofproto.OFPFC_DELETE,
                cookie=COOKIE,
                cookie_mask=COOKIE_MASK,
                table_id=self.table_id if table_id is None else table_id,
                out_port=ofproto.OFPP_ANY if out_port is None else out_port,
                out_group=ofproto.OFPG_ANY,
                match=match,
            )
        )

"""A Ryu app that uses plug-ins: their actions as OFPAT_EXPERIMENTER, their matches as an OXM of an experimenter.

It asks for flow statistics and logs what it is told of its own entries, and every error.
"""

import struct

from ryu.base import app_manager
from ryu.controller import ofp_event
from ryu.controller.handler import CONFIG_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
from ryu.lib import type_desc
from ryu.ofproto import ofproto_v1_3, oxm_fields

EXPERIMENTER = 0x00026F66
TIMESTAMP, SYN_GUARD, FIRST_BYTE = 1, 2, 9


class OfswitchExperimenter(oxm_fields._Experimenter):
    experimenter_id = EXPERIMENTER


ofproto_v1_3.oxm_types.append(OfswitchExperimenter("plugin_bits", 0, type_desc.Int4))
oxm_fields.generate(ofproto_v1_3.__name__)


def plugin(parser, number, arguments):
    return parser.OFPActionExperimenterUnknown(EXPERIMENTER, struct.pack("!H2x12s", number, arguments))


class PluginUser(app_manager.RyuApp):
    OFP_VERSIONS = [ofproto_v1_3.OFP_VERSION]  # noqa: RUF012  Ryu's way

    @set_ev_cls(ofp_event.EventOFPSwitchFeatures, CONFIG_DISPATCHER)
    def set_up(self, event):
        datapath = event.msg.datapath
        ofproto, parser = datapath.ofproto, datapath.ofproto_parser

        def add(priority, actions, **match):
            instructions = [parser.OFPInstructionActions(ofproto.OFPIT_APPLY_ACTIONS, actions)]
            mod = parser.OFPFlowMod(datapath, priority=priority, match=parser.OFPMatch(**match), instructions=instructions)
            datapath.send_msg(mod)

        there, back = parser.OFPActionOutput(2), parser.OFPActionOutput(1)
        stamp = plugin(parser, TIMESTAMP, struct.pack("!IH", 0x11, 8))
        guard = plugin(parser, SYN_GUARD, struct.pack("!IHBB", 1, 20, 24, 64))
        add(1, [there], in_port=1)
        add(1, [back], in_port=2)
        add(2, [stamp, there], in_port=1, eth_type=0x0800, ip_proto=17, udp_dst=4000)
        add(2, [guard, there], in_port=1, eth_type=0x0800, ip_proto=6)
        add(3, [], in_port=1, plugin_bits=(ord("x"), 0xFF))
        add(9, [plugin(parser, 30, b"")], in_port=3)
        datapath.send_msg(parser.OFPFlowStatsRequest(datapath))

    @set_ev_cls(ofp_event.EventOFPFlowStatsReply, MAIN_DISPATCHER)
    def told(self, event):
        for entry in event.msg.body:
            actions = [action for instruction in entry.instructions for action in instruction.actions]
            calls = [action.data[:2].hex() for action in actions if hasattr(action, "experimenter")]
            self.logger.info("ENTRY %d plugin_bits=%s calls=%s", entry.priority, entry.match.get("plugin_bits"), calls)

    @set_ev_cls(ofp_event.EventOFPErrorMsg, [CONFIG_DISPATCHER, MAIN_DISPATCHER])
    def refused(self, event):
        self.logger.info("REFUSED type=%d code=%d", event.msg.type, event.msg.code)

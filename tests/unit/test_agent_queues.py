"""Meters and queues through the agent: set up, counted, used and taken away."""

from __future__ import annotations

import pytest
from agent_support import Box, Peer, frame, free_port, running, until

from appliance.agent.agent import AgentError
from appliance.model.actions import ApplyActions, Meter, Output, SetQueue
from appliance.model.match import MATCH_ALL
from appliance.model.ports import PortNo
from appliance.openflow.messages import (
    BarrierReply,
    BarrierRequest,
    FlowMod,
    MeterBandDrop,
    MeterFlags,
    MeterMod,
    MeterModCommand,
    MeterStatsRequest,
    MultipartReply,
    MultipartRequest,
    PacketOut,
    QueueGetConfigReply,
    QueueGetConfigRequest,
    QueueMaxRate,
    QueueMinRate,
    QueueStatsRequest,
)
from appliance.ports import PortError, QueueRates

PORTS = (
    "eth1",
    {"interface": "eth2", "queues": ({"id": 0, "min_rate": "1G"}, {"id": 5, "max_rate": "2.5 Gb/s"})},
    "eth3",
)


@pytest.fixture
def box(tmp_path):
    port = free_port()
    with running(tmp_path, listen=(f"ptcp:{port}",), ports=PORTS) as box:
        box.openflow_port = port
        yield box


@pytest.fixture
def peer(box):
    peer = Peer.connect(box.openflow_port)
    peer.greet()
    yield peer
    peer.close()


# ── meters ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_meter_drops_and_its_counters_are_those_of_the_fast_path(box, peer):
    bands = (MeterBandDrop(1, 3),)
    peer.send(
        MeterMod(MeterModCommand.ADD, MeterFlags.PKTPS | MeterFlags.BURST, 9, bands),
        FlowMod(match=MATCH_ALL, instructions=(Meter(9), ApplyActions((Output(2),)))),
        BarrierRequest(),
    )
    peer.expect(BarrierReply)
    assert list(box.datapath.meter_counters([9])) == [9]
    for _ in range(10):
        box.inject(1, frame(2, 1))
    until(lambda: sum(box.agent.switch.upcalls.values()) or box.datapath.sent)
    until(lambda: len(box.agent.switch.megaflows) == 1)
    peer.send(MultipartRequest(MeterStatsRequest(9)))
    (statistics,) = peer.expect(MultipartReply).body.entries
    assert statistics.packet_in_count == 10
    assert statistics.band_stats[0].packet_band_count == 10 - len(box.sent())
    peer.send(MeterMod(MeterModCommand.DELETE, MeterFlags.KBPS, 9), BarrierRequest())
    peer.expect(BarrierReply)
    assert box.datapath.meter_counters([9]) == {}


# ── queues ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_queues_are_made_on_their_port_and_taken_away_with_it(tmp_path):
    box = Box(tmp_path, ports=PORTS)
    box.agent.start()
    assert box.links.queues[102] == ((QueueRates(0, 10**9, 0), QueueRates(5, 0, 2_500_000_000)), 10_000_000_000)
    assert box.links.queues[101] == ((), 0), "what an earlier switch may have left there is taken away"
    box.agent.close()
    assert box.links.queues[102] == ((), 0)


def test_a_kernel_that_refuses_queues_keeps_the_switch_from_starting(tmp_path):
    box = Box(tmp_path, ports=PORTS)

    def refuse(ifindex, queues, speed):
        if queues:
            raise PortError("cannot be given queues: no")

    box.links.set_queues = refuse
    with pytest.raises(AgentError, match=r"^port 2 \(eth2\): cannot be given queues: no$"):
        box.agent.run()
    assert 2 not in box.datapath.ports


def test_controllers_are_told_of_queues_and_what_they_have_sent(box, peer):
    peer.send(QueueGetConfigRequest(PortNo.ANY))
    told = peer.expect(QueueGetConfigReply).queues
    assert [(queue.port, queue.queue_id, queue.properties) for queue in told] == [
        (2, 0, (QueueMinRate(100), QueueMaxRate(0xFFFF))),
        (2, 5, (QueueMinRate(0xFFFF), QueueMaxRate(250))),
    ]
    peer.send(MultipartRequest(QueueStatsRequest()))
    statistics = peer.expect(MultipartReply).body.entries
    assert [(item.port_no, item.queue_id, item.tx_bytes, item.tx_packets, item.tx_errors) for item in statistics] == [
        (2, 0, 102_000, 0, 3),
        (2, 5, 102_000, 50, 3),
    ]


def test_a_frame_of_the_slow_path_goes_to_its_queue(box, peer):
    queues = []
    send = box.datapath.send

    def sent(port, frame, gso_size, queue_id, tunnel):
        queues.append((port, queue_id))
        return send(port, frame, gso_size, queue_id, tunnel)

    box.datapath.send = sent
    peer.send(PacketOut(in_port=PortNo.CONTROLLER, actions=(Output(2), SetQueue(5), Output(2), Output(1)), data=frame(2, 1)))
    until(lambda: len(queues) == 3)
    assert queues[:2] == [(2, None), (2, 5)]

"""Auxiliary connections: opened by the switch after the main one, and closed with it (specification 1.3.5, section 6.3.6)."""

from __future__ import annotations

import pytest
from agent_support import Listener, frame, free_port, running, until

from appliance.agent import outgoing
from appliance.agent.green import sleep
from appliance.model.actions import ApplyActions, Output
from appliance.model.ports import PortNo
from appliance.openflow.messages import (
    BarrierReply,
    BarrierRequest,
    FeaturesReply,
    FeaturesRequest,
    FlowMod,
    PacketIn,
)


@pytest.fixture
def listener():
    made = Listener()
    yield made
    made.close()


@pytest.fixture
def box(tmp_path, listener, monkeypatch):
    monkeypatch.setattr(outgoing.Backoff, "delay", lambda _: 0.05)
    controllers = ({"target": f"tcp:127.0.0.1:{listener.port}", "auxiliary": 2},)
    with running(tmp_path, controllers=controllers) as box:
        yield box


def auxiliary_id(peer):
    peer.send(FeaturesRequest())
    return peer.expect(FeaturesReply).auxiliary_id


def connected(listener, number):
    """That many peers, by their auxiliary id."""
    peers = [listener.accept() for _ in range(number)]
    for peer in peers:
        peer.greet()
    return {auxiliary_id(peer): peer for peer in peers}


def test_they_come_after_the_main_connection_and_carry_packet_ins_and_requests(box, listener):
    main = listener.accept()
    sleep(0.3)
    with pytest.raises(BlockingIOError):
        listener.socket.accept()
    main.greet()
    assert auxiliary_id(main) == 0
    others = connected(listener, 2)
    assert sorted(others) == [1, 2]
    others[1].send(FlowMod(instructions=(ApplyActions((Output(PortNo.CONTROLLER),)),)), BarrierRequest())
    others[1].expect(BarrierReply)
    box.inject(1, frame(2, 1))

    def packet_ins():
        for peer in (main, *others.values()):
            peer.read()
        return [number for number, peer in others.items() if any(isinstance(message, PacketIn) for message in peer.heard)]

    assert len(until(packet_ins)) == 1
    assert not any(isinstance(message, PacketIn) for message in main.heard)
    assert sorted(item["target"].partition(" ")[2] for item in box.connected()) == ["", "auxiliary 1", "auxiliary 2"]


def test_they_end_with_the_main_connection_and_come_back_with_it(box, listener):
    main = listener.accept()
    main.greet()
    others = connected(listener, 2)
    main.close()
    for peer in others.values():
        peer.ended()
    again = listener.accept()
    again.greet()
    assert auxiliary_id(again) == 0
    assert sorted(connected(listener, 2)) == [1, 2]


def test_one_that_breaks_is_made_anew_and_the_others_go_on(box, listener):
    main = listener.accept()
    main.greet()
    others = connected(listener, 2)
    others[2].close()
    assert list(connected(listener, 1)) == [2]
    assert auxiliary_id(main) == 0
    assert auxiliary_id(others[1]) == 1


def test_without_being_asked_for_there_are_none(tmp_path, listener):
    with running(tmp_path, controllers=(f"tcp:127.0.0.1:{listener.port}",), listen=(f"ptcp:{free_port()}",)):
        listener.accept().greet()
        sleep(0.3)
        with pytest.raises(BlockingIOError):
            listener.socket.accept()

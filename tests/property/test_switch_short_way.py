"""Packets that come up alone and take the short way (``Switch.short_way``): nothing that can be seen tells that they did."""

from __future__ import annotations

from hypothesis import event, given
from hypothesis import strategies as st
from switch_shell import Shell, mac
from vectors import frames

from appliance.model.actions import ApplyActions, DecNwTtl, GotoTable, Instruction, Output, PushVlan, WriteActions, WriteMetadata
from appliance.model.fields import BY_NAME
from appliance.model.match import MATCH_ALL, Match, MatchField
from appliance.model.ports import PortConfig, PortNo
from appliance.openflow.messages import (
    FlowMod,
    FlowModCommand,
    FlowStatsRequest,
    FragmentHandling,
    Message,
    MultipartReply,
    MultipartRequest,
    PortMod,
    SetConfig,
    TableStatsRequest,
)
from appliance.switch.events import PassedOn, Upcalls

RULES: dict[str, tuple[Instruction, ...]] = {
    "out": (ApplyActions((Output(3),)),),
    "twice": (ApplyActions((Output(2),)), WriteActions((Output(3),))),
    "back": (ApplyActions((Output(1), Output(PortNo.IN_PORT))),),
    "on": (WriteMetadata(1, 3), GotoTable(1)),
    "out and on": (ApplyActions((Output(2),)), GotoTable(1)),
    "drop": (),
    "flood": (ApplyActions((Output(PortNo.FLOOD),)),),
    "up": (ApplyActions((Output(3), Output(PortNo.CONTROLLER))),),
    "learn": (ApplyActions((Output(PortNo.NORMAL),)),),
    "route": (ApplyActions((DecNwTtl(), Output(3))),),
    "tag": (ApplyActions((PushVlan(0x8100), Output(3))),),
}


def udp(source: int, *, partial: bool = False, fragment: bool = False) -> bytes:
    raw = frames.ethernet(
        0x0800, frames.ipv4(17, frames.udp(source, payload=b"x"), fragment=0x2000 if fragment else 0), dst=mac(2), src=mac(1)
    )
    whole = frames.Sample(raw, 4, 14, 34, 17).finished()
    return (whole.partial() if partial else whole).frame


FRAMES = (
    udp(1),
    udp(2),
    udp(3, partial=True),
    udp(4, fragment=True),
    frames.ethernet(0x1234, bytes(46), dst=mac(2), src=mac(1)),
    frames.ethernet(0x8100, b"\x00\x05\x08\x00" + bytes(46), dst=mac(3), src=mac(1)),
)
MODS: dict[str, Message] = {
    "delete": FlowMod(command=FlowModCommand.DELETE, table_id=0, match=MATCH_ALL),
    "silent": PortMod(3, mac(0xFF03), PortConfig.NO_FWD, PortConfig.NO_FWD),
    "loud": PortMod(3, mac(0xFF03), PortConfig(0), PortConfig.NO_FWD),
    "no fragments": SetConfig(FragmentHandling.DROP, 128),
    "fragments": SetConfig(FragmentHandling.NORMAL, 128),
}
PRIORITIES = {"": 0, "in_port": 1, "udp_src": 2}
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from((1, 1, 2)), st.sampled_from(FRAMES)),
        st.tuples(st.sampled_from((1, 1, 2)), st.sampled_from(FRAMES)),
        st.tuples(st.sampled_from(tuple(RULES)), st.integers(0, 1), st.sampled_from(tuple(PRIORITIES))),
        st.sampled_from((*MODS, "led", "left alone")),
    ),
    max_size=14,
)


def match_for(name: str) -> Match:
    fields = {"": {}, "in_port": {"in_port": 1}, "udp_src": {"eth_type": 0x0800, "ip_proto": 17, "udp_src": 1}}[name]
    return Match.of(MatchField(BY_NAME[field], value) for field, value in fields.items())


def do(shell: Shell, step: object) -> None:
    led = bool(shell.switch.controllers)
    match step:
        case "led" | "left alone":
            if (step == "led") != led:
                shell.open(1) if step == "led" else shell.close(1)
        case str() if led:
            shell.receive(MODS[step])
        case str(rule), int(table), str(name) if led:
            mod = FlowMod(table_id=table, priority=PRIORITIES[name], match=match_for(name), instructions=RULES[rule])
            shell.receive(mod)


def come_up(short: Shell, long: Shell, in_port: int, frame: bytes) -> None:
    """Both work off what comes of this frame, one of them by the long way."""
    for shell in (short, long):
        shell.datapath.inject(in_port, frame)
    while upcalls := short.datapath.upcalls(64):
        (upcall,) = upcalls
        event(type(short.work_off(upcall)).__name__)
        long.step(Upcalls(tuple(long.datapath.upcalls(64))))
    for shell in (short, long):
        shell.datapath.caught_up(shell.switch.megaflow_ids)


def told(shell: Shell) -> list[tuple[int, Message]]:
    """All messages; the last are statistics."""
    do(shell, "led")
    for body in (FlowStatsRequest(), TableStatsRequest()):
        shell.ask(MultipartRequest(body), MultipartReply)
    return shell.messages


@given(STEPS)
def test_the_short_way_is_the_long_one(steps: list[object]) -> None:
    short, long = (Shell(3, fail_mode="standalone") for _ in range(2))
    for step in [("on", 0, ""), ("out", 1, "in_port"), *steps]:
        if isinstance(step, tuple) and isinstance(step[1], bytes):
            come_up(short, long, *step)
        else:
            do(short, step)
            do(long, step)
        short.now = long.now = short.now + 1.0
        assert short.datapath.sent == long.datapath.sent
    live = [[(each.megaflow, each.packets, each.last_used) for each in shell.switch.megaflows] for shell in (short, long)]
    assert live[0] == live[1]
    assert short.switch.upcalls == long.switch.upcalls
    assert told(short) == told(long)


def test_which_packets_take_it() -> None:
    """Or nothing would be tested here."""
    shell = Shell(3)
    taken = {}
    for rule in RULES:
        do(shell, (rule, 0, ""))
        do(shell, ("out", 1, ""))
        shell.datapath.inject(1, FRAMES[0])
        (upcall,) = shell.datapath.upcalls(9)
        taken[rule] = isinstance(shell.work_off(upcall), PassedOn)
        do(shell, "delete")
    assert [rule for rule, short in taken.items() if short] == ["out", "twice", "back", "on", "out and on"]

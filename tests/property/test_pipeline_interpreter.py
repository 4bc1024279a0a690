"""Translation and execution against an interpreter that knows nothing of megaflows, masks or continuations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

from hypothesis import event, given, settings
from hypothesis import strategies as st
from support import pipeline_cases as cases
from support.interpreter import Interpreter

from appliance.model.actions import Output
from appliance.model.fields import ETH_SRC, IN_PORT
from appliance.model.megaflow import Controller, Failover, Forward, PacketInReason, Select, Way
from appliance.model.ports import PortNo
from appliance.model.tunnel import Tunnel
from appliance.packet.execute import Emission, execute
from appliance.packet.parse import parse
from appliance.pipeline.flow_table import FlowEntry, Pipeline
from appliance.pipeline.group_table import GroupHit
from appliance.pipeline.mac_table import MacTable, normal
from appliance.pipeline.xlate import Translation, resume, translate, translate_actions
from appliance.switch.megaflows import installable

MANY = settings(max_examples=5 * settings.default.max_examples)
EVERYTHING = st.booleans()

MAC_TABLE = MacTable()
MAC_TABLE.learn(ETH_SRC.put(IN_PORT.put(0, 2), 0x020000000001), 0.0)
MAC_TABLE.learn(ETH_SRC.put(IN_PORT.put(0, 3), 0x020000000002), 0.0)


def normal_port(key: int) -> Translation:
    return normal(key, MAC_TABLE, 1.0)


def interpreter(pipeline: Pipeline, frame: bytes, in_port: int, live: frozenset[int], tunnel: Tunnel) -> Interpreter:
    return Interpreter(pipeline, frame, in_port, live, tunnel, meter=cases.meter, normal_port=normal_port)


def comparable(emissions: Sequence[Emission], in_order: bool) -> object:
    """A used-up TTL is told by its reason alone: who says so differs (the fast path does not know the entry)."""
    items = [
        (item.action.reason, item.frame)
        if isinstance(item.action, Controller) and item.action.reason is PacketInReason.INVALID_TTL
        else (item.action, item.frame, item.queue_id, item.tunnel)
        for item in emissions
    ]
    return items if in_order else Counter(items)


class Run:
    """A translation executed as the switch does, parsing again where it says so."""

    def __init__(self, pipeline: Pipeline, in_port: int, live: frozenset[int]) -> None:
        self.pipeline = pipeline
        self.in_port = in_port
        self.live = live
        self.emissions: list[Emission] = []
        self.entries: list[FlowEntry | None] = []
        self.hits: list[GroupHit] = []
        self.stopped = False
        self.translations = 0

    def run(self, translation: Translation, frame: bytes, tunnel: Tunnel) -> None:
        self.translations += 1
        assert self.translations < 500
        self.entries += [lookup.entry for lookup in translation.lookups]
        self.hits += translation.hits
        goes_on = [*translation.forks, *([] if translation.again is None else [translation.again])]
        end = Forward(0)
        taken: list[tuple[Select | Failover, Way]] = []
        done = execute(
            frame,
            (*translation.actions, end) if goes_on else translation.actions,
            self.in_port,
            meter=cases.meter,
            port_is_live=self.live.__contains__,
            chosen=lambda *way: taken.append(way),
            tunnel=tunnel,
        )
        for choice, way in taken:
            self.hits += translation.way_hits[choice.group_id, way.bucket]
        rest = done.pop() if done and done[-1].action is end else None
        self.emissions += done
        self.stopped |= any(
            isinstance(item.action, Controller) and item.action.reason is PacketInReason.INVALID_TTL for item in done
        )
        if goes_on and rest is None:
            self.stopped = True
            return
        for again in goes_on:
            assert rest is not None
            assert not installable(translation)
            key = parse(rest.frame, self.in_port, *rest.tunnel).key
            self.run(resume(self.pipeline, again, key, normal_port, self.live.__contains__), rest.frame, rest.tunnel)


def check(run: Run, expected: Interpreter, everything: bool) -> None:
    event(f"emissions {min(len(run.emissions), 3)}, translations {min(run.translations, 4)}")
    assert comparable(run.emissions, not everything) == comparable(expected.emissions, not everything)
    metered = any(entry is not None and entry.meter_id == cases.DROPPING_METER for entry in run.entries)
    if not run.stopped and not metered:
        # A packet that stops is counted in later tables too: its megaflow does not know.
        assert run.entries == expected.entries
        assert Counter(run.hits) == Counter(expected.hits)


@given(cases.RANDOMS, EVERYTHING)
@MANY
def test_frames_leave_as_an_interpreter_would_send_them(rnd: Random, everything: bool) -> None:
    pipeline, frame, in_port = cases.pipeline(rnd, everything), cases.frame(rnd, everything), rnd.choice(cases.IN_PORTS)
    live = frozenset(port for port in (1, 2, 3, PortNo.LOCAL) if rnd.random() < 0.6)
    tunnel = cases.tunnel(rnd)
    expected = interpreter(pipeline, frame, in_port, live, tunnel)
    expected.run()
    run = Run(pipeline, in_port, live)
    run.run(translate(pipeline, parse(frame, in_port, *tunnel).key, normal_port, live.__contains__), frame, tunnel)
    check(run, expected, everything)


@given(cases.RANDOMS, EVERYTHING)
@MANY
def test_packet_outs_leave_as_an_interpreter_would_send_them(rnd: Random, everything: bool) -> None:
    pipeline, frame = cases.pipeline(rnd, everything), cases.frame(rnd, everything)
    actions = cases.actions(rnd, 7, everything)
    live = frozenset(port for port in (1, 2, 3, PortNo.LOCAL) if rnd.random() < 0.6)
    to_table = rnd.random() < 0.5
    tunnel = cases.tunnel(rnd)
    expected = interpreter(pipeline, frame, 1, live, tunnel)
    if expected.do_all(actions) and to_table:
        expected.run()
    if to_table:
        actions = (*actions, Output(PortNo.TABLE))
    run = Run(pipeline, 1, live)
    key = parse(frame, 1, *tunnel).key
    run.run(translate_actions(pipeline, key, actions, normal_port, live.__contains__), frame, tunnel)
    check(run, expected, everything)

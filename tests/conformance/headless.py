"""os-ken's switch tester as it is, without its console: the cases that it is given, with verdict and reason handed back.

What a case means, what is installed, sent, waited for and compared, is os-ken's (os_ken/tests/switch/tester.py), but for these:

- its second switch is raw sockets (wire.py), so what it asks of that switch is answered here at once;
- SCTP checksums: `sctp._checksum` runs over `str(bytes)` on Python 3, so that all of its SCTP packets are wrong; RFC 9260's here;
- frames expected are padded to Ethernet's least 60 bytes, which a veth pair does not do: what comes in is padded likewise;
- its sender sleeps 10 ms between bursts and forgets how long a burst takes (175 packets/s come out as 160): paced by the clock;
- an assertion in it ends the case as failed, not the program.

Invariant: nothing else of the tool's is changed, so a case passes here exactly if it would by hand.

Import it after os_ken.lib.hub.patch(), with OSKEN_HUB_TYPE=eventlet: on os-ken's native threads its timeouts do not interrupt.
"""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from conformance.cases import Case
from conformance.outcome import FAILED, PASSED, Outcome
from conformance.wire import Filter, Wire
from eventlet import hubs
from os_ken.controller import handler, ofp_event
from os_ken.controller.handler import set_ev_cls
from os_ken.lib import hub
from os_ken.lib.packet import sctp
from os_ken.ofproto import ofproto_protocol
from os_ken.tests.switch import tester

TESTER_DATAPATH_ID = 0x7E57
GRACE_SECONDS = 60.0
"""What a case may take beyond its least time."""

LOOKED_UP_SECONDS = 30.0
"""For a packet to be in the table counters, on a machine that is busy with something else."""

WARM_SECONDS = 0.05
"""For the target to learn from a packet, and for what it sends because of that to arrive before anyone listens."""

_LEAST_FRAME = 60
_LARGEST_BURST = 200


class WireSwitch:
    """The tool's `tester_sw`: port 1 sends, ports 2 and 3 receive."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.flows: list[Any] = []
        self.dp = ofproto_protocol.ProtocolDesc(tester.OfTester.tester_ver)
        self.dp.id = TESTER_DATAPATH_ID
        self._xid = 0

    def send_packet_out(self, data: bytes) -> int:
        self.wire.send(tester.CONF["test-switch"]["tester_send_port"], bytes(data))
        self._xid += 1
        return self._xid

    def send_flow_stats(self) -> int:
        """The tool passes this method to say whose flows it means; the answer is given by HeadlessTester."""
        raise NotImplementedError


class HeadlessTester(tester.OfTester):  # type: ignore[misc]
    """``report`` gets every outcome as it comes; ``revive`` is called when the target is not there, and says what it knows of it.

    ``settle``: seconds until a table-miss must be in the table counters (the tool: 1). ``pause``: seconds between the barrier reply
    and the packet (the tool: none). ``warm``: send the packet once before, unlooked at, so that the one that counts meets whatever
    the target has cached for it (the tool: never, so that a switch with a fast path is hardly asked about it). ``retries``: how
    often a failed case is tried again.
    """

    def __init__(
        self,
        *,
        cases: Sequence[Case],
        folder: str,
        wire: Wire,
        report: Callable[[Outcome], None],
        revive: Callable[[], str],
        settle: float,
        pause: float,
        warm: bool,
        retries: int,
        connect_seconds: float,
    ) -> None:
        tester.INTERVAL = settle
        self._cases, self._folder, self._wire = cases, folder, wire
        self._report, self._revive = report, revive
        self._pause, self._warm, self._retries, self._connect_seconds = pause, warm, retries, connect_seconds
        self._verdict = _Verdict()
        self._malformed = _Malformed()
        self._evidence: dict[str, Any] = {}
        self._files: dict[str, Any] = {}
        super().__init__()
        self.tester_sw = WireSwitch(wire)
        for port in wire.sockets():
            hub.spawn(self._receive, port)

    # ---- the run

    def _set_logger(self) -> None:
        self.logger.propagate = False
        self.logger.setLevel(logging.INFO)
        self.logger.handlers[:] = [self._verdict]
        codec = logging.getLogger("os_ken.ofproto.ofproto_parser")
        codec.propagate = False
        codec.addHandler(self._malformed)

    def _test_sequential_execute(self, test_dir: str) -> None:
        for case in self._cases:
            self._report(self._outcome(case))

    def close(self) -> None:
        """The process ends when the cases have; there is nothing else to end."""

    def _outcome(self, case: Case) -> Outcome:
        self._wait_for_target()
        start = time.monotonic()
        passed, reason = self._execute(case)
        attempts = 1
        while not passed and attempts <= self._retries:
            passed, reason = self._execute(case)
            attempts += 1
        evidence = {} if passed else self._evidence
        verdict = PASSED if passed else FAILED
        return Outcome(case.name, verdict, reason, round(time.monotonic() - start, 2), attempts, evidence)

    def _execute(self, case: Case) -> tuple[bool, str]:
        self._verdict.clear()
        self._malformed.faults.clear()
        self._evidence = {}
        self.waiter = self.ingress_event = None
        self.ingress_threads: list[Any] = []
        if not self._wait_for_target():
            return False, f"target not connected: {self._revive()}"
        test = self._test_of(case)
        timer = hub.Timeout(case.seconds + GRACE_SECONDS)
        try:
            self._test_execute(test, None)
        except hub.Timeout as error:
            if error is not timer:
                raise
            return False, f"not done after {case.seconds + GRACE_SECONDS:.0f} s"
        except Exception as error:  # the tool's own assertions, and what its comparing stumbles over
            return False, f"tool: {type(error).__name__} {error} in state {self.state}, with {self._arrived()}"
        finally:
            timer.cancel()
        if self._malformed.faults:
            return False, f"malformed message from the target: {self._malformed.faults[0]}"
        return self._verdict.result == tester.TEST_OK, self._verdict.reason

    def _arrived(self) -> str:
        return ", ".join(type(message).__name__ for message in self.rcv_msgs) or "no message"

    def _wait_for_target(self) -> bool:
        end = time.monotonic() + self._connect_seconds
        while isinstance(self.target_sw.dp, tester.DummyDatapath):
            if time.monotonic() > end:
                return False
            hub.sleep(0.05)
        return True

    def _test_of(self, case: Case) -> Any:
        if case.file not in self._files:
            self._files = {case.file: tester.TestFile(f"{self._folder}/{case.file}", self.logger)}
        return self._files[case.file].tests[case.index]

    # ---- what the tool asks of its tester switch

    def _test_initialize_flow(self, datapath: Any) -> None:
        if datapath is self.tester_sw:
            self.tester_sw.flows.clear()
        else:
            super()._test_initialize_flow(datapath)

    def _test_msg_install(self, datapath: Any, message: Any) -> None:
        if datapath is self.tester_sw:
            self.tester_sw.flows.append(message.match)
        else:
            super()._test_msg_install(datapath, message)

    def _test_exist_check(self, method: Any, message: Any) -> None:
        if method.__self__ is not self.tester_sw:
            super()._test_exist_check(method, message)

    def _test_get_packet_count(self, is_target: bool) -> Any:
        if is_target:
            return super()._test_get_packet_count(is_target)
        wire = self._wire
        return {port: {"rx": wire.received[port], "tx": wire.sent[port]} for port in wire.sockets()}

    def _test_send_barrier(self) -> None:
        """A raw socket has sent when `send` returns."""

    def _test_get_throughput(self) -> tuple[float, dict[str, tuple[int, int]]]:
        counts = {str(match): self._wire.count(Filter(**dict(match.items()))) for match in self.tester_sw.flows}
        return time.time(), {match: (size, packets) for match, (packets, size) in counts.items()}

    # ---- frames

    def _receive(self, port: int) -> None:
        """Hand on what comes in at a port, as the tool's tester switch does: as a packet-in where the default flow takes it."""
        arrived = self._wire.sockets()[port]
        while True:
            hubs.trampoline(arrived, read=True)
            frames = self._wire.drain(port)
            if port == self.tester_recv_port_1:
                for frame in frames:
                    self._packet_in(frame)
            hub.sleep(0)

    def _packet_in(self, frame: bytes) -> None:
        dp = self.tester_sw.dp
        reason = dp.ofproto.OFPR_ACTION
        message = dp.ofproto_parser.OFPPacketIn(dp, dp.ofproto.OFP_NO_BUFFER, len(frame), reason, 0, 0, None, frame)
        self.packet_in_handler(SimpleNamespace(msg=message))

    @set_ev_cls(ofp_event.EventOFPPacketIn, handler.MAIN_DISPATCHER)  # type: ignore[untyped-decorator]
    def packet_in_handler(self, ev: Any) -> None:
        ev.msg.data = bytes(ev.msg.data).ljust(_LEAST_FRAME, b"\0")
        if self.state == tester.STATE_FLOW_MATCH_CHK and self.waiter:
            who = "tester" if ev.msg.datapath.id == TESTER_DATAPATH_ID else "target"
            self._evidence.setdefault("received", []).append(f"{who}: {ev.msg.data.hex()}")
        super().packet_in_handler(ev)

    def _test_flow_unmatching_check(self, before_stats: Any, pkt: Any) -> None:
        """The tool asks once, after its settling time: as long as the packet has not been looked up, it asks again."""
        tables, end = pkt[tester.KEY_TBL_MISS], time.monotonic() + LOOKED_UP_SECONDS
        while time.monotonic() < end:
            counts = self._test_get_match_count()
            if any(counts[table]["lookup"] > before_stats[table]["lookup"] for table in tables):
                break
            hub.sleep(0.05)
        super()._test_flow_unmatching_check(before_stats, pkt)

    def _one_time_packet_send(self, pkt: Any) -> None:
        hub.sleep(self._pause)
        expected = pkt.get(tester.KEY_EGRESS) or pkt.get(tester.KEY_PKT_IN)
        self._evidence["sent"] = pkt[tester.KEY_INGRESS].hex()
        self._evidence["expected"] = expected.hex() if expected else "table-miss"
        if self._warm:
            self.tester_sw.send_packet_out(pkt[tester.KEY_INGRESS])
            hub.sleep(WARM_SECONDS)
        super()._one_time_packet_send(pkt)

    def _continuous_packet_send(self, pkt: Any) -> None:
        hub.sleep(self._pause)
        plan = pkt[tester.KEY_PACKETS]
        start, sent = time.monotonic(), 0
        while (elapsed := time.monotonic() - start) < plan[tester.KEY_DURATION_TIME]:
            due = int(elapsed * plan[tester.KEY_PKTPS])
            for _ in range(min(due - sent, _LARGEST_BURST)):
                self.tester_sw.send_packet_out(_frame(plan))
                sent += 1
            hub.sleep(0.005 if sent >= due else 0)
        self._evidence["offered"] = round(sent / (time.monotonic() - start), 1)


class _Verdict(logging.Handler):
    """The tool logs its verdicts and keeps none: pick them up again."""

    def __init__(self) -> None:
        super().__init__()
        self.clear()

    def clear(self) -> None:
        self.result = self.reason = ""

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg == "    %-100s %s" and isinstance(record.args, tuple):
            self.result = str(record.args[1])
        elif record.msg == "        %s" and isinstance(record.args, tuple):
            self.reason = str(record.args[0])


class _Malformed(logging.Handler):
    """os-ken drops a message that it cannot parse: the case would end in a timeout that says nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self.faults.append(f"{record.getMessage().splitlines()[0]} {type(error).__name__} {error}")


def _frame(plan: Any) -> bytes:
    if not plan["randomize"]:
        return bytes(plan["packet_binary"])
    packet = eval("/".join(plan["packet_text"]), vars(tester))  # as the tool does; the text is os-ken's own
    packet.serialize()
    return bytes(packet.data)


def _crc32c(_: object, data: bytes) -> int:
    """SCTP's checksum as the header field's value (RFC 9260, appendix A): the remainder goes out low byte first."""
    remainder = 0xFFFFFFFF
    for byte in bytes(data):
        remainder ^= byte
        for _bit in range(8):
            remainder = remainder >> 1 ^ (0x82F63B78 if remainder & 1 else 0)
    (value,) = struct.unpack(">I", struct.pack("<I", remainder ^ 0xFFFFFFFF))
    return int(value)


sctp.sctp._checksum = _crc32c

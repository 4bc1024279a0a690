"""Plug-ins: actions and matches that a user adds to the fast path by a C file and a declaration, ``PLUGIN = Plugin(…)``.

From OpenFlow they are reached by what the specification leaves to experimenters. An action is OFPAT_EXPERIMENTER (section 7.2.5)
with EXPERIMENTER_ID, the plug-in's id in two bytes, two bytes of zeros, and the arguments, padded with zeros. All matches together
have 32 bits of the flow key, ``plugin_bits``: an OXM with a mask (class 0xffff, field 0, section 7.2.3.3).

Invariant: a plug-in has one meaning: whichever tier handles a packet, its own eBPF program runs on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

EXPERIMENTER_ID = 0x00026F66
"""02:6f:66 is a prefix that each may use at his own place (IEEE 802, "locally administered"): nobody's."""
MAX_PLUGINS = 32
ARGUMENT_BYTES = 12
MATCH_BITS = 32
MAX_COUNTERS = 16
_HEAD_BYTES = 4


@dataclass(frozen=True, slots=True)
class Argument:
    """One number that an action is given, unsigned, in network order, right behind the one before."""

    name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class PluginAction:
    """``check`` says what is wrong with arguments, "" for nothing. ``writes`` names the fields that the action may change."""

    arguments: tuple[Argument, ...] = ()
    check: Callable[[Mapping[str, int]], str] | None = None
    writes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PluginMatch:
    """It says ``bits`` bits of every packet that comes in, ``at`` that place in ``plugin_bits`` (0: the lowest)."""

    bits: int
    at: int

    @property
    def mask(self) -> int:
        return ((1 << self.bits) - 1) << self.at


class Maps(Protocol):
    """A plug-in's BPF maps, by the names that they have in its C file."""

    def items(self, name: str) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values, as they lie in memory. Raises KeyError for a map that is not there."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """``id`` is 1 to MAX_PLUGINS - 1, and what controllers call it by. ``counters`` are those of ``plugin_count``, in order;
    ``statistics`` tells of more than these."""

    id: int
    action: PluginAction | None = None
    match: PluginMatch | None = None
    counters: tuple[str, ...] = ()
    statistics: Callable[[Maps], Mapping[str, int]] | None = field(default=None, compare=False)

    def faults(self) -> list[str]:
        """What is wrong with the declaration."""
        found = []
        if not 1 <= self.id < MAX_PLUGINS:
            found.append(f"id {self.id} is not 1 to {MAX_PLUGINS - 1}")
        if self.action is None and self.match is None:
            found.append("neither an action nor a match")
        if self.action is not None and sum(argument.bytes for argument in self.action.arguments) > ARGUMENT_BYTES:
            found.append(f"more than {ARGUMENT_BYTES} bytes of arguments")
        if self.match is not None and not (self.match.bits >= 1 and 0 <= self.match.at <= MATCH_BITS - self.match.bits):
            found.append(f"its match is not within {MATCH_BITS} bits")
        if len(self.counters) > MAX_COUNTERS:
            found.append(f"more than {MAX_COUNTERS} counters")
        return found


@dataclass(frozen=True, slots=True)
class PluginFile:
    """What was found in a folder: a declaration and the ``source`` beside it, a path; or what is the matter with them."""

    name: str
    source: str
    plugin: Plugin | None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class PluginState:
    """One plug-in as it is: at work, or left out for a ``fault``. ``counted`` are its counters and statistics."""

    file: PluginFile
    fault: str
    counted: Mapping[str, int]


class ArgumentError(ValueError):
    """The text says what is wrong with an action's arguments."""


def read_arguments(action: PluginAction, raw: bytes) -> dict[str, int]:
    """Of ARGUMENT_BYTES bytes. Raises ArgumentError if they are more than the action has, or wrong."""
    values: dict[str, int] = {}
    position = 0
    for argument in action.arguments:
        values[argument.name] = int.from_bytes(raw[position : position + argument.bytes], "big")
        position += argument.bytes
    if any(raw[position:]):
        raise ArgumentError(f"there is something behind the {position} bytes of arguments")
    wrong = action.check(values) if action.check is not None else ""
    if wrong:
        raise ArgumentError(wrong)
    return values


def plugin_of(data: bytes) -> int:
    """The plug-in's id alone."""
    return int.from_bytes(data[:2], "big")


def call_of(data: bytes) -> tuple[int, bytes]:
    """The plug-in's id and ARGUMENT_BYTES bytes of arguments, of what stands behind the experimenter's id in an action.

    Raises ArgumentError.
    """
    if not _HEAD_BYTES < len(data) <= _HEAD_BYTES + ARGUMENT_BYTES or any(data[2:_HEAD_BYTES]):
        raise ArgumentError("an action of a plug-in is its id in two bytes, two bytes of zeros, and 4 or 12 bytes of arguments")
    return plugin_of(data), data[_HEAD_BYTES:].ljust(ARGUMENT_BYTES, b"\0")


class Plugins(Protocol):
    """The plug-ins that work, and a way to run them on packets that the fast path did not handle."""

    @property
    def loaded(self) -> Mapping[int, Plugin]:
        """By id."""

    def run(self, plugin_id: int, arguments: bytes, frame: bytes, in_port: int) -> bytes | None:
        """What the action makes of a frame (tags in it, checksums finished); None if it drops it, or is not loaded."""

    def bits(self, frame: bytes, in_port: int) -> int:
        """``plugin_bits`` of a frame that came in on this port."""

    def states(self) -> list[PluginState]:
        """Of all that were found."""


class _NoPlugins:
    loaded: Mapping[int, Plugin] = {}

    def states(self) -> list[PluginState]:
        return []

    def run(self, plugin_id: int, arguments: bytes, frame: bytes, in_port: int) -> bytes | None:
        return None

    def bits(self, frame: bytes, in_port: int) -> int:
        return 0


NO_PLUGINS: Plugins = _NoPlugins()

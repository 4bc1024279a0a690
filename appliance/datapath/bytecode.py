"""Compiled programs as they can be kept: bytecode in which maps, tables and constants are still to be put (``Code.linked``).

Invariant: bytecode holds for any process and any start; what is chosen anew each time is a relocation.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

_INSTRUCTION_BYTES = 8
_IMMEDIATE = 4
"""Where an instruction has its number; one that loads 64 bits has the high half at the same place of its second half."""
_HALF = struct.Struct("=I")


class RelocationKind(StrEnum):
    MAP = "map"
    TABLE = "table"
    CONSTANT = "constant"


@dataclass(frozen=True, slots=True)
class Relocation:
    """``which`` is the name of a map, or the number of a table or constant."""

    offset: int
    kind: RelocationKind
    which: str | int


@dataclass(frozen=True, slots=True)
class MapShape:
    """``kind`` is BPF_MAP_TYPE_*, ``flags`` BPF_F_*."""

    kind: int
    key_bytes: int
    value_bytes: int
    entries: int
    flags: int


@dataclass(frozen=True, slots=True)
class Code:
    """One program."""

    raw: bytes
    relocations: tuple[Relocation, ...]

    def linked(self, maps: Mapping[str, int], tables: Sequence[int] = (), constants: Sequence[int] = ()) -> bytes:
        """The instructions with these file descriptors, and these constants of 64 bits."""
        code = bytearray(self.raw)
        for relocation in self.relocations:
            at = relocation.offset + _IMMEDIATE
            if relocation.kind is RelocationKind.MAP:
                _HALF.pack_into(code, at, maps[str(relocation.which)])
            elif relocation.kind is RelocationKind.TABLE:
                _HALF.pack_into(code, at, tables[int(relocation.which)])
            else:
                constant = constants[int(relocation.which)]
                _HALF.pack_into(code, at, constant & 0xFFFFFFFF)
                _HALF.pack_into(code, at + _INSTRUCTION_BYTES, constant >> 32)
        return bytes(code)


@dataclass(frozen=True, slots=True)
class Tool:
    """A file that had a hand in it, as it was."""

    path: str
    size: int
    changed_ns: int


@dataclass(frozen=True, slots=True)
class Bytecode:
    """One compiled source: its maps and programs by name, and what it was made with."""

    maps: Mapping[str, MapShape]
    programs: Mapping[str, Code]
    tools: tuple[Tool, ...] = field(compare=False)

    @classmethod
    def read(cls, text: str | bytes) -> Bytecode:
        """What ``bcc_process`` has written. Raises ValueError, with the reason that it gives if it has made none."""
        try:
            found = json.loads(text)
            if "error" in found:
                raise ValueError(found["error"])
            return cls(
                {name: MapShape(**shape) for name, shape in found["maps"].items()},
                {name: _code(program) for name, program in found["programs"].items()},
                tuple(Tool(*tool) for tool in found["tools"]),
            )
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError, binascii.Error) as error:
            raise ValueError(f"no bytecode: {error}") from error


def _code(program: Mapping[str, Any]) -> Code:
    relocations = tuple(Relocation(offset, RelocationKind(kind), which) for offset, kind, which in program["relocations"])
    return Code(base64.b64decode(program["code"]), relocations)

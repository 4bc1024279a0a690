"""bpf_prog/abi.h against its Python mirrors: a compiled program prints sizes, offsets and numbers. Needs a C compiler, not root."""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path

import pytest

from appliance.datapath import layout
from appliance.datapath.build import SOURCES
from appliance.model import fields, plugin
from appliance.model.fields import LAYOUT, SHARED, Fragment, Layer
from appliance.model.megaflow import FIRST_AGAIN, LAST_AGAIN, MAX_BANDS, MAX_LEADING_METERS, MAX_WAYS, DropReason, UpcallReason
from appliance.model.ports import LOCAL_PORT, MAX_PORT_NUMBER

STRUCTURES: dict[str, type[ctypes.Structure]] = {
    "op": layout.Op,
    "megaflow": layout.Megaflow,
    "megaflow_body": layout.MegaflowBody,
    "edit": layout.Edit,
    "megaflow_stats": layout.MegaflowStats,
    "subtable": layout.Subtable,
    "subtable_order": layout.SubtableOrder,
    "bucket": layout.Bucket,
    "cache_set": layout.CacheSet,
    "repeated": layout.Repeated,
    "way": layout.Way,
    "choice": layout.Choice,
    "band": layout.Band,
    "meter": layout.Meter,
    "metered": layout.Metered,
    "port": layout.Port,
    "ingress": layout.Ingress,
    "tunnel": layout.Tunnel,
    "tunnel_end": layout.TunnelEnd,
    "injection": layout.Injection,
    "port_counters": layout.PortCounters,
    "settings": layout.Settings,
    "upcall_share": layout.UpcallShare,
    "line": layout.Line,
    "upcall": layout.Upcall,
}

ENUMS: dict[str, dict[str, int]] = {
    "OP_": {member.name: member.value for member in layout.OpCode},
    "MEGAFLOW_": {str(member.name): member.value for member in layout.MegaflowFlag},
    "PORT_": {str(member.name): member.value for member in layout.PortFlag},
    "RETAG_": {member.name: member.value for member in layout.Retag},
    "SEND_": {str(member.name): member.value for member in layout.SendFlag},
    "TUNNEL_": {str(member.name): member.value for member in layout.TunnelFlag},
    "CHOICE_": {member.name: member.value for member in layout.ChoiceKind},
    "PLUGIN_": {member.name: member.value for member in layout.PluginKind},
    "PROGRAM_": {member.name: member.value for member in layout.ProgramIndex},
    "UPCALL_": {member.name: member.value for member in UpcallReason},
    "DROP_": {member.name: member.value for member in DropReason},
    "LAYER_": {str(member.name): member.value for member in Layer if str(member.name) != "IP"},
    "FRAGMENT_": {member.name: member.value for member in Fragment},
}

LIMITS: dict[str, int] = {
    "KEY_WORDS": layout.KEY_WORDS,
    "COMMON_WORDS": layout.COMMON_WORDS,
    "MAX_FLOOD_PORTS": layout.MAX_FLOOD_PORTS,
    "MAX_SUBTABLES": layout.MAX_SUBTABLES,
    "MAX_OPS": layout.MAX_OPS,
    "EDIT_OPS": layout.EDIT_OPS,
    "RUN_OPS": layout.RUN_OPS,
    "BUCKET_WAYS": layout.BUCKET_WAYS,
    "CACHE_WAYS": layout.CACHE_WAYS,
    "NO_SUBTABLE": layout.NO_SUBTABLE,
    "NO_OTHER_END": layout.NO_OTHER_END,
    "CRC_SHIFTS": layout.CRC_SHIFTS,
    "UPCALL_UNIT": layout.UPCALL_UNIT,
    "MAX_CHOICES": layout.MAX_CHOICES,
    "MAX_WAITING": layout.MAX_WAITING,
    "LINES": layout.LINES,
    "MAX_METERS": layout.MAX_METERS,
    "MAX_METER_OPS": MAX_LEADING_METERS,
    "MAX_PLUGINS": plugin.MAX_PLUGINS,
    "PLUGIN_ARGUMENT_BYTES": plugin.ARGUMENT_BYTES,
    "MAX_PLUGIN_COUNTERS": plugin.MAX_COUNTERS,
    "NO_SLOT": layout.NO_SLOT,
    "MAX_TAGS_OF_COPY": layout.MAX_TAGS_OF_COPY,
    "FIRST_AGAIN": FIRST_AGAIN,
    "LAST_AGAIN": LAST_AGAIN,
    "PLUGIN_PROGRAM(2, 5)": layout.plugin_program(layout.PluginKind.ACTION_APART, 5),
    "MAX_WAYS": MAX_WAYS,
    "MAX_BANDS": MAX_BANDS,
    "MAX_PORT_NUMBER": MAX_PORT_NUMBER,
    "LOCAL_PLACE": layout.LOCAL_PLACE,
    "PORT_PLACES": layout.PORT_PLACES,
    "OFPP_LOCAL": LOCAL_PORT,
    "MAX_VLAN_TAGS": fields.MAX_VLAN_TAGS,
    "MAX_IPV6_EXTENSION_HEADERS": fields.MAX_IPV6_EXTENSION_HEADERS,
    "MAX_ND_OPTIONS": fields.MAX_ND_OPTIONS,
    "MAX_HEADER_BYTES": fields.MAX_HEADER_BYTES,
}

COUNTS = {"PROGRAMS", "DROP_REASONS", "PLUGIN_KINDS"}
"""Enumerators that only count the others."""


def evaluate(expressions: Iterable[str], folder: Path) -> dict[str, int]:
    """What the C compiler makes of each expression."""
    expressions = list(expressions)
    lines = "".join(f'printf("%lld\\n", (long long)({expression}));\n' for expression in expressions)
    source = folder / "abi.c"
    source.write_text(
        "#include <stddef.h>\n#include <stdint.h>\n#include <stdio.h>\n"
        "typedef uint8_t u8; typedef uint16_t u16; typedef uint32_t u32; typedef uint64_t u64;\n"
        f'#include "{SOURCES / "abi.h"}"\nint main(void) {{\n{lines}return 0; }}\n'
    )
    subprocess.run(["cc", "-Wall", "-Werror", "-o", folder / "abi", source], check=True)
    output = subprocess.run([folder / "abi"], check=True, capture_output=True, text=True).stdout
    return dict(zip(expressions, map(int, output.split()), strict=True))


@pytest.mark.parametrize("name", STRUCTURES)
def test_structure(name: str, tmp_path: Path) -> None:
    mirror = STRUCTURES[name]
    expected = {f"sizeof(struct {name})": ctypes.sizeof(mirror)}
    for member, *_ in mirror._fields_:
        expected[f"offsetof(struct {name}, {member})"] = getattr(mirror, member).offset
        expected[f"sizeof(((struct {name} *)0)->{member})"] = getattr(mirror, member).size
    assert evaluate(expected, tmp_path) == expected


def test_structures_leave_no_gaps_and_no_name_out(tmp_path: Path) -> None:
    text = (SOURCES / "abi.h").read_text()
    assert set(re.findall(r"^struct (\w+) \{", text, re.MULTILINE)) == {*STRUCTURES, "flow_key", "crc_shift"}
    for name, mirror in STRUCTURES.items():
        end = 0
        for member, *_ in mirror._fields_:
            assert getattr(mirror, member).offset == end, (name, member)
            end += getattr(mirror, member).size
        assert end == ctypes.sizeof(mirror), name


def test_flow_key(tmp_path: Path) -> None:
    expected = {"sizeof(struct flow_key)": fields.KEY_BYTES}
    for member, (offset, size) in (LAYOUT | SHARED).items():
        expected[f"offsetof(struct flow_key, {member})"] = offset
        expected[f"sizeof(((struct flow_key *)0)->{member})"] = size
    assert evaluate(expected, tmp_path) == expected


def test_numbers(tmp_path: Path) -> None:
    expected = dict(LIMITS)
    for prefix, members in ENUMS.items():
        expected |= {prefix + name: value for name, value in members.items()}
    assert evaluate(expected, tmp_path) == expected


def test_every_enumerator_has_a_mirror() -> None:
    text = (SOURCES / "abi.h").read_text()
    named = {prefix + name for prefix, members in ENUMS.items() for name in members}
    enumerators = set(re.findall(r"^\t([A-Z0-9_]+) = ", text, re.MULTILINE))
    assert enumerators - COUNTS == named


def test_counts(tmp_path: Path) -> None:
    assert evaluate(COUNTS, tmp_path) == {
        "PROGRAMS": len(layout.ProgramIndex),
        "DROP_REASONS": len(DropReason),
        "PLUGIN_KINDS": len(layout.PluginKind),
    }


def test_ints_are_what_they_say() -> None:
    """The reasons go through JSON and C alike."""
    assert all(issubclass(kind, IntEnum) for kind in (UpcallReason, DropReason, layout.OpCode))

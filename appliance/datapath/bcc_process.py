"""The compiler's process: C in, bytecode out. The only module that imports bcc, and nothing imports it: ``build`` runs it.

BCC brings LLVM, which takes 200 MB and seconds, and is needed for nothing else. So it is called in a process that ends with it. On
standard input comes a request, {"text", "flags", "constants"}; on standard output goes what ``bytecode`` reads, or {"error"}; on
standard error what the compiler says. Invariant: what goes out holds for any process: maps, tables and constants are named where
this one's would stand in the code.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_INSTRUCTION = struct.Struct("=BBhi")
_LOAD_64 = 0x18
_VALUE, _MAP, _TABLE = 0, 1, 2
"""Of what such a load is: BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE."""


def _compiled(request: dict[str, Any]) -> dict[str, Any]:
    try:
        import bcc
    except ImportError:
        return {"error": "BCC's Python module is missing: apt-get install python3-bpfcc"}
    try:
        program = bcc.BPF(text=request["text"].encode(), cflags=request["flags"])
    except Exception as error:  # BCC raises nothing more precise
        return {"error": str(error)}
    lib, module = bcc.lib, program.module
    for name_of in (lib.bpf_table_name, lib.bpf_function_name):
        name_of.restype = ctypes.c_char_p
    maps = dict(_maps(lib, module))
    names = {fd: name for name, (fd, _) in maps.items()}
    constants = {constant: number for number, constant in enumerate(request["constants"])}
    programs = {}
    for number in range(lib.bpf_num_functions(module)):
        name = lib.bpf_function_name(module, number)
        code = ctypes.string_at(lib.bpf_function_start(module, name), lib.bpf_function_size(module, name))
        programs[name.decode()] = {
            "code": base64.b64encode(code).decode(),
            "relocations": list(_relocations(code, names, constants)),
        }
    return {"maps": {name: shape for name, (_, shape) in maps.items()}, "programs": programs, "tools": list(_tools(bcc))}


def _maps(lib: Any, module: Any) -> Iterator[tuple[str, tuple[int, dict[str, int]]]]:
    """Name, file descriptor here, and shape."""
    for number in range(lib.bpf_num_tables(module)):
        shape = {
            "kind": lib.bpf_table_type_id(module, number),
            "key_bytes": lib.bpf_table_key_size_id(module, number),
            "value_bytes": lib.bpf_table_leaf_size_id(module, number),
            "entries": lib.bpf_table_max_entries_id(module, number),
            "flags": lib.bpf_table_flags_id(module, number),
        }
        yield lib.bpf_table_name(module, number).decode(), (lib.bpf_table_fd_id(module, number), shape)


def _relocations(code: bytes, maps: dict[int, str], constants: dict[int, int]) -> Iterator[tuple[int, str, str | int]]:
    """Where, what, and which."""
    wide = False
    for at, (operation, registers, _, low) in enumerate(_INSTRUCTION.iter_unpack(code)):
        if wide or operation != _LOAD_64:  # the second half of one is no instruction
            wide = False
            continue
        wide = True
        source, offset = registers >> 4, at * _INSTRUCTION.size
        if source == _MAP:
            yield offset, "map", maps[low]
        elif source == _TABLE:
            yield offset, "table", low
        elif source == _VALUE:
            high = _INSTRUCTION.unpack_from(code, offset + _INSTRUCTION.size)[3]
            number = constants.get((high & 0xFFFFFFFF) << 32 | low & 0xFFFFFFFF)
            if number is not None:
                yield offset, "constant", number


def _tools(bcc: Any) -> Iterator[tuple[str, int, int]]:
    """All that has had a hand in it: the program and libraries in memory, and BCC's modules; bytes and time of change of each."""
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == bcc.__name__]
    paths = {module.__file__ for module in modules if module.__file__}
    for line in Path("/proc/self/maps").read_text().splitlines():
        columns = line.split(maxsplit=5)
        if columns[1][2] == "x" and columns[-1].startswith("/"):
            paths.add(columns[-1])
    for path in sorted(paths):
        status = os.stat(path)
        yield path, status.st_size, status.st_mtime_ns


def main() -> None:
    with os.fdopen(os.dup(1), "w") as reply:
        os.dup2(2, 1)  # libbcc must not write there
        json.dump(_compiled(json.load(sys.stdin)), reply)


if __name__ == "__main__":
    main()

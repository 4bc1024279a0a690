"""From C to bytecode: out of the cache, or by the compiler, in a process of its own.

No kernel headers are needed: BCC is pointed at ``bpf_prog/stub``. The sources are joined into one text first, with ``#line``,
because BCC rewrites map calls in the main file only. Invariant: what does not compile raises DatapathError with the compiler's own
words; nothing is printed. A text is compiled again if anything that the compiler saw has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from appliance.datapath.bytecode import Bytecode
from appliance.datapath.bytecode_cache import BytecodeCache, default_directory
from appliance.datapath.driver import DatapathError

SOURCES = Path(__file__).resolve().parents[2] / "bpf_prog"
MAIN_SOURCE = "datapath.c"

_STUB = SOURCES / "stub"
_HEADERS = _STUB / "include"
_COMPILER = Path(__file__).with_name("bcc_process.py")
_INCLUDE = re.compile(r'#include "(\w+\.h)"')
_OTHER_INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]?([^<>"\s]*)', re.MULTILINE)
_COMPILER_ERROR = re.compile(r":\d+: error: ")
_REPORTED_LINES = 30


def amalgamate(*files: str, sources: Path = SOURCES) -> str:
    """These files (by default the main one) with our headers put in by text, each line still known by its file and number.

    Raises OSError.
    """
    lines: list[str] = []

    def add(file: str) -> None:
        lines.append(f'#line 1 "{file}"')
        for number, line in enumerate((sources / file).read_text(errors="replace").splitlines(), 1):
            included = _INCLUDE.match(line)
            if included:
                add(included[1])
                lines.append(f'#line {number + 1} "{file}"')
            else:
                lines.append("" if line.strip() == "#pragma once" else line)

    for name in files or (MAIN_SOURCE,):
        add(name)
    return "\n".join(lines) + "\n"


def build(what: str, text: str, flags: Sequence[str], constants: Sequence[int] = ()) -> Bytecode:
    """``text`` compiled with these flags. ``constants`` are numbers of 64 bits in it, for which others are to be put at each start:
    each dense enough that the compiler cannot do without it. ``what`` is for people. Raises DatapathError.
    """
    cache = BytecodeCache(default_directory())
    request = json.dumps({"text": text, "flags": [f"-I{_HEADERS}", *flags], "constants": list(constants)}).encode()
    key = _key(request) if _is_whole(text) else None
    found = cache.load(key) if key else None
    if found is not None:
        return found
    reply, said = _compile(what, request)
    try:
        made = Bytecode.read(reply)
    except ValueError as error:
        raise DatapathError(f"cannot compile {what}: {error}\n{said}".rstrip()) from error
    if key:
        cache.store(key, reply)
    return made


def _is_whole(text: str) -> bool:
    """Whether it has all that it is made of but for our headers, or the compiler's own."""
    return all((_HEADERS / name).is_file() for name in _OTHER_INCLUDE.findall(text))


def _key(request: bytes) -> str:
    """Of all that decides what becomes of a request, but for the compiler, which the bytecode names itself. The kernel is part of
    it, because the compiler asks it which instructions it knows."""
    digest = hashlib.sha256()
    machine = os.uname()
    seen = [machine.release, machine.machine, _COMPILER.read_text(), request.decode()]
    for file in sorted(_HEADERS.rglob("*.h")):
        seen += [str(file), file.read_text()]
    for part in seen:
        digest.update(f"{len(part)} {part}\n".encode())
    return digest.hexdigest()


def _compile(what: str, request: bytes) -> tuple[bytes, str]:
    """What the compiler's process answers, and what it says besides. Raises DatapathError."""
    environment = {**os.environ, "BCC_KERNEL_SOURCE": str(_STUB)}
    try:
        # -P: our modules must not stand before those that it imports.
        done = subprocess.run([sys.executable, "-P", str(_COMPILER)], input=request, capture_output=True, env=environment)
    except OSError as error:
        raise DatapathError(f"cannot compile {what}: cannot start {sys.executable}: {error.strerror}") from error
    if done.returncode:
        raise DatapathError(
            f"cannot compile {what}: the compiler's process ended with status {done.returncode}\n{_complaint(done.stderr)}".rstrip()
        )
    return done.stdout, _complaint(done.stderr)


def _complaint(said: bytes) -> str:
    lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
    # The compiler's first error explains the others.
    errors = [n for n, line in enumerate(lines) if _COMPILER_ERROR.search(line)]
    shown = lines[errors[0] :][:_REPORTED_LINES] if errors else lines[-_REPORTED_LINES:]
    return "\n".join("  " + line for line in shown)

"""Plug-ins in the kernel: each is compiled apart, and each of its programs verified apart.

A plug-in that the compiler or the verifier refuses is left out, with their words; the others work. Its programs are called by ours
through ``tc_programs`` and go back there, so the maps that they share with ours are put in the place of stand-ins in its code.
A packet that the slow path executes is run through the same code by BPF_PROG_TEST_RUN (``ofswitch_apart``).

Invariant: without plug-ins no packet is handled differently; a plug-in in ``loaded`` works at once, in both tiers.
"""

from __future__ import annotations

import errno
import logging
import os
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence

from appliance.datapath.driver import DatapathError
from appliance.datapath.layout import PluginKind, ProgramIndex, plugin_program, port_place
from appliance.datapath.loader import Module, Programs
from appliance.datapath.programs import SCHED_CLS, call_with, load_verified
from appliance.model.plugin import Plugin, PluginFile, PluginState

LOG = logging.getLogger("ofswitch.plugins")

_SHARED = ("scratch", "tc_programs")
_PASSES = 0
_ARGUMENTS = struct.Struct("=III")
_HEAD_BYTES = 3000
"""The kernel makes a packet for a test run of little more than 3,500 bytes: of a longer one a plug-in sees so much."""


class PluginPrograms:
    """See ``model.plugin.Plugins``. ``files`` in the order of their ids, in which their matches run."""

    def __init__(self, programs: Programs, files: Sequence[PluginFile], cpus: int) -> None:
        self._programs = programs
        self._cpus = cpus
        self._files = tuple(files)
        self._faults = {file.name: file.fault for file in files if file.fault}
        self._modules: dict[int, Module] = {}
        self._fds: list[int] = []
        self.loaded: Mapping[int, Plugin] = dict(self._load_all())
        """By id."""
        matches = {number: plugin.match.mask for number, plugin in self.loaded.items() if plugin.match is not None}
        self._matching = tuple(matches)
        self.matched = sum(matches.values())
        """Bits of ``plugin_bits`` that matches tell."""
        for name, fault in self._faults.items():
            LOG.error("plug-in %s is left out: %s", name, fault)

    def _load_all(self) -> Iterator[tuple[int, Plugin]]:
        """Those that can be loaded. Each match goes on with the next one, so the last comes first."""
        next_match = int(ProgramIndex.LOOK_UP)
        for file in reversed(self._files):
            plugin = file.plugin
            if plugin is None:
                continue
            try:
                self._load(file, plugin, next_match)
            except DatapathError as error:
                self._faults[file.name] = str(error)
                continue
            if plugin.match is not None:
                next_match = plugin_program(PluginKind.MATCH, plugin.id)
            yield plugin.id, plugin

    def _load(self, file: PluginFile, plugin: Plugin, next_match: int) -> None:
        defines = [f"-DCPUS={self._cpus}", "-Werror=implicit-function-declaration"]
        kinds: list[PluginKind] = []
        if plugin.action is not None:
            defines.append("-DHAS_ACTION")
            kinds += [PluginKind.ACTION, PluginKind.ACTION_APART]
        if plugin.match is not None:
            at = (f"-DMATCH_BITS={plugin.match.bits}", f"-DMATCH_AT={plugin.match.at}", f"-DNEXT_MATCH={next_match}")
            defines += ["-DHAS_MATCH", *at]
            kinds += [PluginKind.MATCH, PluginKind.MATCH_APART]
        shared = {name: self._programs.map_fd(name) for name in _SHARED}
        module = Module(file.source, (file.source, "plugin_entry.h"), defines, shared)
        fds: dict[PluginKind, int] = {}
        try:
            for kind in kinds:
                function = f"ofswitch_{kind.name.lower()}"
                fds[kind] = load_verified(SCHED_CLS, f"{function} of {file.source}", function, module.instructions(function))
        except DatapathError:
            for fd in fds.values():
                os.close(fd)
            module.close()
            raise
        for kind, fd in fds.items():
            self._programs.update("tc_programs", plugin_program(kind, plugin.id), fd.to_bytes(4, sys.byteorder))
        if PluginKind.MATCH in fds:
            # The first of the chain so far.
            self._programs.update("tc_programs", ProgramIndex.HANDLE, fds[PluginKind.MATCH].to_bytes(4, sys.byteorder))
        self._modules[plugin.id] = module
        self._fds += fds.values()

    # ── for the slow path ──────────────────────────────────────────────────────────────────────────────────────────────
    def run(self, plugin_id: int, arguments: bytes, frame: bytes, in_port: int) -> bytes | None:
        if plugin_id not in self.loaded:
            return None
        verdict, changed = self._call(PluginKind.ACTION_APART, plugin_id, arguments, frame, in_port)
        return changed if verdict == _PASSES else None

    def bits(self, frame: bytes, in_port: int) -> int:
        found = 0
        for plugin_id in self._matching:
            found |= self._call(PluginKind.MATCH_APART, plugin_id, bytes(_ARGUMENTS.size), frame, in_port)[0] & 0xFFFFFFFF
        return found

    def _call(self, kind: PluginKind, plugin_id: int, arguments: bytes, frame: bytes, in_port: int) -> tuple[int, bytes]:
        control = (plugin_program(kind, plugin_id), *_ARGUMENTS.unpack(arguments), port_place(in_port))
        head = frame[:_HEAD_BYTES]
        try:
            verdict, changed = call_with(self._programs.apart_fd, head, control)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return _PASSES, frame  # no packet that the kernel would make: IP headers that are cut off
            raise DatapathError(f"cannot run plug-in {plugin_id}: {error.strerror}") from error
        return verdict, changed + frame[_HEAD_BYTES:]

    # ── for people ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def states(self) -> list[PluginState]:
        return [PluginState(file, self._faults.get(file.name, ""), self._counted(file)) for file in self._files]

    def _counted(self, file: PluginFile) -> dict[str, int]:
        plugin = file.plugin
        module = self._modules.get(plugin.id) if plugin is not None else None
        if plugin is None or module is None:
            return {}
        counted = {name: module.read_on_cpus("counters", place) for place, name in enumerate(plugin.counters)}
        if plugin.statistics is not None:
            try:
                counted |= plugin.statistics(module)
            except Exception:  # it is the user's
                LOG.exception("plug-in %s: statistics", file.name)
        return counted

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)
        for module in self._modules.values():
            module.close()
        self._fds.clear()
        self._modules.clear()

"""Putting BPF programs on interfaces and taking them off again: XDP, and TC behind a clsact qdisc, through rtnetlink.

Invariant: a program that is not ours is never replaced or removed. What is ours is written in the name of our TC filter, which
the kernel keeps when we crash: ``ofswitch``, then ``+clsact`` if we made the qdisc, and ``+xdp:ID`` if program ID at XDP is ours
too (an XDP program's own name is told to CAP_SYS_ADMIN alone). So attach XDP first, then TC with that id; detach XDP first, too.

Every call opens its own netlink socket (some 0.7 ms): no state between calls, and any thread may call.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from appliance.datapath import programs
from appliance.datapath.driver import DatapathError

OUR_NAME = "ofswitch"
"""Our TC filters' names start with this, and so must the names of the programs given to ``attach_xdp``."""

TC_PRIORITY = 1
TC_HANDLE = 0x0F5
_TC_PLACE = f"priority {TC_PRIORITY}, handle {TC_HANDLE:#x}"

_INGRESS = 0xFFFFFFF2  # TC_H_CLSACT, TC_H_MIN_INGRESS
_EGRESS = 0xFFFFFFF3
_GONE = (errno.ENODEV, errno.ENXIO)
_NOTHING_THERE = (*_GONE, errno.ENOENT, errno.EINVAL)  # EINVAL: the qdisc that should hold the filter is not there

_XDP_UPDATE_IF_NOEXIST = 1 << 0
_XDP_REPLACE = 1 << 4


class XdpMode(Enum):
    """Where the driver runs an XDP program; the value is the XDP_FLAGS_* bit."""

    GENERIC = 1 << 1
    """After an skb is made: any device, but slower than TC."""
    NATIVE = 1 << 2
    """In the driver, before an skb exists."""


@dataclass(frozen=True, slots=True)
class TcFilter:
    """A filter at ingress or egress; ``name`` is empty if it is not a BPF one."""

    kind: str
    name: str
    priority: int
    handle: int
    ingress: bool

    @property
    def ours(self) -> bool:
        """This ofswitch or an earlier one put it there."""
        return self.name.partition("+")[0] == OUR_NAME

    @property
    def made_clsact(self) -> bool:
        return self.ours and "clsact" in self.name.split("+")

    @property
    def xdp_program(self) -> int:
        """The id of the XDP program that was attached together with this filter, 0 for none."""
        if self.ours:
            for part in self.name.split("+"):
                key, _, value = part.partition(":")
                if key == "xdp" and value.isdigit():
                    return int(value)
        return 0


@contextmanager
def _netlink(what: str) -> Iterator[Any]:
    """A netlink socket; the kernel's refusal becomes a DatapathError that starts with ``what``."""
    with IPRoute(ext_ack=True) as ip:
        try:
            yield ip
        except NetlinkError as error:
            if error.code in _GONE:
                reason = "the interface is gone"
            elif error.code == errno.EPERM:
                reason = "not permitted; CAP_NET_ADMIN is needed (and CAP_BPF)"
            else:
                reason = os.strerror(error.code)
                said = error.args[1] if len(error.args) > 1 else None
                if said and said != reason:
                    reason += f" ({said})"
            raise DatapathError(f"{what}: {reason}") from error


def _name(ifindex: int) -> str:
    try:
        with IPRoute() as ip:
            return str(ip.get_links(ifindex)[0].get("ifname"))
    except NetlinkError:
        return f"interface {ifindex}"


# ── TC ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _filters(ip: Any, ifindex: int, *, ingress: bool) -> list[TcFilter]:
    found = []
    try:
        answers = list(ip.get_filters(index=ifindex, parent=_INGRESS if ingress else _EGRESS))
    except NetlinkError as error:
        if error.code in _NOTHING_THERE:
            return []
        raise
    for answer in answers:
        if not answer["handle"]:
            continue  # the kernel also lists each (priority, kind) by itself
        options = answer.get_attr("TCA_OPTIONS")
        name = options.get_attr("TCA_BPF_NAME") if answer.get_attr("TCA_KIND") == "bpf" and options else None
        found.append(TcFilter(answer.get_attr("TCA_KIND"), name or "", answer["info"] >> 16, answer["handle"], ingress))
    return found


def tc_filters(ifindex: int) -> list[TcFilter]:
    """Every filter at the interface's clsact (or ingress) qdisc; empty if there is none, or the interface is gone."""
    with _netlink(f"list TC filters of interface {ifindex}") as ip:
        return _filters(ip, ifindex, ingress=True) + _filters(ip, ifindex, ingress=False)


def _at_our_place(filters: list[TcFilter]) -> TcFilter | None:
    """The one at ingress, or at egress if ``filters`` are those of egress."""
    for item in filters:
        if item.priority == TC_PRIORITY and item.handle == TC_HANDLE:
            return item
    return None


def attached(ifindex: int, *, egress: bool = False) -> tuple[int, bool] | None:
    """The id of the program at XDP, ours or not (0 for none), and whether our filter is at ingress; with ``egress``, there as well.

    None if the interface is gone. Raises DatapathError.
    """
    with _netlink(f"ask for the programs of {_name(ifindex)}") as ip:
        at_tc = [_at_our_place(_filters(ip, ifindex, ingress=ingress)) for ingress in ((True, False) if egress else (True,))]
        try:
            program_id, _ = _xdp(ip, ifindex)
        except NetlinkError as error:
            if error.code in _GONE:
                return None
            raise
        return program_id, all(found is not None and found.ours for found in at_tc)


def is_ours(ifindex: int) -> bool:
    """Whether an earlier ofswitch's program takes the interface's packets; no if the interface is gone."""
    holder = _at_our_place([item for item in tc_filters(ifindex) if item.ingress])
    return holder is not None and holder.ours


def attach_tc(ifindex: int, prog_fd: int, xdp_program: int = 0, *, egress: bool = False, made_clsact: bool = False) -> bool:
    """Run a program of type SCHED_CLS, direct-action, at the interface's ingress; or, once one is there, at its egress. A filter
    of an earlier ofswitch is replaced atomically: every packet meets the old program or the new one.

    ``xdp_program`` is the id of ours at XDP on the same interface, so that a later ofswitch knows it. ``made_clsact``: an earlier
    call made the clsact that may be there without our filter. Returns whether we made it, now or then. Raises DatapathError.
    """
    with _netlink(f"attach to {_name(ifindex)} at TC") as ip:
        made = True
        try:
            ip.tc("add", "clsact", ifindex)
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise
            made = made_clsact
        holder = _at_our_place(_filters(ip, ifindex, ingress=not egress))
        if holder is not None and not holder.ours:
            raise DatapathError(
                f"attach to {_name(ifindex)} at TC: {_TC_PLACE} is taken by filter {holder.name!r} of another program; "
                f"remove it: tc filter del dev {_name(ifindex)} {'egress' if egress else 'ingress'}"
            )
        if holder is not None:
            made = holder.made_clsact
        name = OUR_NAME + ("+clsact" if made else "") + (f"+xdp:{xdp_program}" if xdp_program else "")
        try:
            ip.tc(
                "replace-filter",
                "bpf",
                ifindex,
                handle=TC_HANDLE,
                fd=prog_fd,
                name=name,
                parent=_EGRESS if egress else _INGRESS,
                prio=TC_PRIORITY,
                direct_action=True,
            )
        except NetlinkError:
            if made and holder is None:
                ip.tc("del", "clsact", ifindex)
            raise
    return made


def detach_tc(ifindex: int) -> None:
    """Take our filters off, and the clsact qdisc if we made it and nobody else uses it.

    Nothing of ours there, or no interface: nothing to do.
    """
    with _netlink(f"detach from {_name(ifindex)} at TC") as ip:
        here = [(parent, _filters(ip, ifindex, ingress=parent == _INGRESS)) for parent in (_INGRESS, _EGRESS)]
        ours = {parent: found for parent, filters in here if (found := _at_our_place(filters)) is not None and found.ours}
        others = sum(len(filters) for _, filters in here) - len(ours)
        try:
            if not others and any(found.made_clsact for found in ours.values()):
                ip.tc("del", "clsact", ifindex)
                return
            for parent in ours:
                ip.tc("del-filter", "bpf", ifindex, handle=TC_HANDLE, parent=parent, prio=TC_PRIORITY)
        except NetlinkError as error:
            if error.code not in _NOTHING_THERE:
                raise


# ── XDP ────────────────────────────────────────────────────────────────────────────────────────────────────────────────
_ATTACHED_MODE = {"xdp": XdpMode.NATIVE, "xdpgeneric": XdpMode.GENERIC}


def _xdp(ip: Any, ifindex: int) -> tuple[int, XdpMode | None]:
    """The program at XDP (0 for none) and its mode (None for none, or an offloaded one)."""
    link = ip.get_links(ifindex)[0]
    return link.get_nested("IFLA_XDP", "IFLA_XDP_PROG_ID") or 0, _ATTACHED_MODE.get(
        link.get_nested("IFLA_XDP", "IFLA_XDP_ATTACHED")
    )


def xdp_program_id(ifindex: int) -> int:
    """The id of the program at XDP, ours or not; 0 for none, or if the interface is gone."""
    with IPRoute() as ip:
        try:
            return _xdp(ip, ifindex)[0]
        except NetlinkError as error:
            if error.code in _GONE:
                return 0
            raise DatapathError(f"ask for the XDP program of interface {ifindex}: {os.strerror(error.code)}") from error


def _ours_at_xdp(ip: Any, ifindex: int, program_id: int) -> bool:
    program = programs.find(program_id)
    if program is not None and program.name.startswith(OUR_NAME):
        return True
    ours = _at_our_place(_filters(ip, ifindex, ingress=True))
    return ours is not None and ours.xdp_program == program_id


def _set_xdp(ip: Any, ifindex: int, prog_fd: int, flags: int, expected_fd: int | None = None) -> None:
    attributes = [("IFLA_XDP_FD", prog_fd), ("IFLA_XDP_FLAGS", flags)]
    if expected_fd is not None:
        attributes.append(("IFLA_XDP_EXPECTED_FD", expected_fd))
    ip.link("set", index=ifindex, xdp={"attrs": attributes})


def _replace_xdp(ip: Any, ifindex: int, prog_fd: int, mode: XdpMode, old: int) -> None:
    """Exchange program ``old`` in the same mode; where we may have its descriptor, only if it is still there."""
    old_fd = programs.open_program(old)
    if old_fd is None:
        _set_xdp(ip, ifindex, prog_fd, mode.value)
        return
    try:
        _set_xdp(ip, ifindex, prog_fd, mode.value | _XDP_REPLACE, old_fd)
    finally:
        os.close(old_fd)


def attach_xdp(ifindex: int, prog_fd: int, mode: XdpMode = XdpMode.NATIVE) -> int:
    """Run a program of type XDP on the interface; its id. Replaces a program of an earlier ofswitch (atomically in the same mode).

    Raises DatapathError: another program holds the interface, the driver knows no native XDP, the MTU is too large …
    """
    with _netlink(f"attach to {_name(ifindex)} at XDP ({mode.name.lower()})") as ip:
        old, old_mode = _xdp(ip, ifindex)
        if old and not _ours_at_xdp(ip, ifindex, old):
            program = programs.find(old)
            name = f" {program.name!r}" if program is not None else ", whose name only CAP_SYS_ADMIN may read"
            raise DatapathError(
                f"attach to {_name(ifindex)} at XDP: program {old}{name} holds it, and an interface has one; "
                f"take it off (ip link set dev {_name(ifindex)} xdp off) or use hook: tc"
            )
        if old and old_mode is mode:
            _replace_xdp(ip, ifindex, prog_fd, mode, old)
        else:
            if old and old_mode is not None:
                _set_xdp(ip, ifindex, -1, old_mode.value)
            _set_xdp(ip, ifindex, prog_fd, mode.value | _XDP_UPDATE_IF_NOEXIST)
        return _xdp(ip, ifindex)[0]


def detach_xdp(ifindex: int) -> None:
    """Take our program off. Another one's stays; nothing there, or no interface: nothing to do."""
    with _netlink(f"detach from {_name(ifindex)} at XDP") as ip:
        try:
            old, mode = _xdp(ip, ifindex)
            if old and mode is not None and _ours_at_xdp(ip, ifindex, old):
                _set_xdp(ip, ifindex, -1, mode.value)
        except NetlinkError as error:
            if error.code not in _GONE:
                raise

"""Open vSwitch, as a peer to be measured: its own database, sockets and processes.

Invariant: nothing of an Open vSwitch that may be running on the machine is touched, and nothing of this one stays.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from kernel import BenchError
from links import command

SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
READY_SECONDS = 60.0
BRIDGE = "ovs0"
POLL_SLEEP_US = 500


def why_not(datapath: str = "netdev", *, afxdp: bool = False) -> str:
    """Empty if it can be run here, with this datapath."""
    missing = [name for name in ("ovsdb-server", "ovs-vswitchd", "ovs-vsctl", "ovs-ofctl") if shutil.which(name) is None]
    if missing or not SCHEMA.exists():
        return "not installed: openvswitch-switch"
    if datapath == "netdev" and not os.path.exists("/dev/net/tun"):
        return "no /dev/net/tun"
    daemon = shutil.which("ovs-vswitchd") or ""
    if afxdp and "libxdp" not in command(["ldd", daemon]):
        return "this Open vSwitch is built without AF_XDP"
    return ""


class OpenVSwitch:
    """One bridge on interfaces in the namespace of whoever enters it; ``datapath`` is ``netdev``, in userspace, or ``system``, the
    kernel module. On interfaces in ``afxdp``, netdev takes frames by AF_XDP, in a thread that polls. A context manager; one of
    them in a namespace, for its interfaces have fixed names.
    """

    def __init__(
        self, interfaces: Sequence[str], *, datapath: str = "netdev", afxdp: Sequence[str] = (), userspace_tso: bool = False
    ) -> None:
        self._interfaces = interfaces
        self._datapath = datapath
        self._afxdp = afxdp
        self._userspace_tso = userspace_tso
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> OpenVSwitch:
        self._directory = Path(tempfile.mkdtemp(prefix="bench-ovs-"))
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def environment(self) -> dict[str, str]:
        here = str(self._directory)
        return {**os.environ, "OVS_RUNDIR": here, "OVS_LOGDIR": here, "OVS_DBDIR": here, "OVS_SYSCONFDIR": here}

    def _spawn(self, *argv: str) -> None:
        with (self._directory / f"{argv[0]}.out").open("wb") as out:
            process = subprocess.Popen(argv, env=self.environment, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        self._processes.append(process)

    def _start(self) -> None:
        here = self._directory
        database, remote = str(here / "conf.db"), f"unix:{here}/db.sock"
        command(["ovsdb-tool", "create", database, str(SCHEMA)], env=self.environment)
        self._spawn("ovsdb-server", database, f"--remote=p{remote}", f"--pidfile={here}/ovsdb-server.pid", "-vconsole:off")
        self._wait_for(here / "db.sock")
        self._vsctl("--no-wait", "init")
        if self._afxdp:
            # It polls on the first CPU, where the source of frames is not; and it sleeps when idle, for the others' sake.
            settings = (f"pmd-maxsleep={POLL_SLEEP_US}", f"pmd-cpu-mask={1 << min(os.sched_getaffinity(0)):#x}")
            self._vsctl("--no-wait", "set", "Open_vSwitch", ".", *(f"other_config:{setting}" for setting in settings))
        if self._userspace_tso:
            self._vsctl("--no-wait", "set", "Open_vSwitch", ".", "other_config:userspace-tso-enable=true")
        self._spawn(
            "ovs-vswitchd", remote, f"--pidfile={here}/ovs-vswitchd.pid", "-vconsole:off", f"--log-file={here}/ovs-vswitchd.log"
        )
        self._wait_for(here / "ovs-vswitchd.pid")
        self._vsctl("add-br", BRIDGE, "--", "set", "bridge", BRIDGE, f"datapath_type={self._datapath}", "fail_mode=secure")
        for number, interface in enumerate(self._interfaces, 1):
            options = [f"ofport_request={number}", *(["type=afxdp"] if interface in self._afxdp else [])]
            self._vsctl("add-port", BRIDGE, interface, "--", "set", "interface", interface, *options)
        error = self._vsctl("--bare", "--columns=error", "list", "interface").strip()
        if error:
            raise BenchError(f"Open vSwitch: {error}")

    def _vsctl(self, *arguments: str) -> str:
        return command(["ovs-vsctl", "--timeout=60", f"--db=unix:{self._directory}/db.sock", *arguments], env=self.environment)

    def _wait_for(self, path: Path) -> None:
        end = time.monotonic() + READY_SECONDS
        while not path.exists():
            if time.monotonic() > end or self._processes[-1].poll() is not None:
                raise BenchError(f"{self._processes[-1].args!r} did not come up")
            time.sleep(0.02)

    def add_flows(self, flows: Sequence[str]) -> None:
        """By OpenFlow 1.3."""
        path = self._directory / "flows"
        path.write_text("\n".join(flows) + "\n")
        self.ofctl("add-flows", str(path))

    def ofctl(self, name: str, *arguments: str) -> str:
        """``ovs-ofctl NAME``, which must be accepted; what it printed."""
        return command(["ovs-ofctl", "-O", "OpenFlow13", name, BRIDGE, *arguments], env=self.environment)

    def listen(self, port: int) -> None:
        """By TCP, on loopback, besides its unix socket."""
        self._vsctl("set-controller", BRIDGE, f"ptcp:{port}:127.0.0.1")
        self._vsctl("set", "controller", BRIDGE, "connection_mode=out-of-band", "inactivity_probe=0")

    def connection(self) -> socket.socket:
        """To speak OpenFlow by."""
        result = socket.socket(socket.AF_UNIX)
        result.connect(str(self._directory / f"{BRIDGE}.mgmt"))
        return result

    @property
    def pid(self) -> int:
        """Of ovs-vswitchd."""
        return self._processes[-1].pid

    def megaflows(self) -> int:
        """How many are in the datapath now."""
        pid = self._processes[-1].pid
        target = f"{self._directory}/ovs-vswitchd.{pid}.ctl"
        listing = command(["ovs-appctl", "-t", target, "dpctl/dump-flows"], env=self.environment)
        return sum("in_port(" in line for line in listing.splitlines())

    def close(self) -> None:
        for process in reversed(self._processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self._processes.clear()
        shutil.rmtree(self._directory, ignore_errors=True)

"""Build the image and let it switch packets for real: ``make docker-test``. Needs root, no registry, no running Docker.

The base image is a minimal Debian made here by debootstrap. The switch then joins two hosts (network namespaces), once from
the host's network and once from a network namespace of its own, with no capability beyond those that README.md names.

Invariant: whatever happens, nothing stays behind: no daemon, container, image, namespace, interface or file.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from daemon import Docker, DockerError, own_daemon

REPOSITORY = Path(__file__).resolve().parents[2]
BASE = "debian:bookworm-slim"
IMAGE = "ofswitch:docker-test"

# README.md, "Docker", names the same ones. Docker knows BPF and PERFMON since 23.0; before, SYS_ADMIN stands for them.
CAPABILITIES = ("BPF", "NET_ADMIN", "NET_RAW", "PERFMON")
CAPABILITIES_OLD = ("NET_ADMIN", "NET_RAW", "SYS_ADMIN")

# So that the newer set is tested under an older Docker too: a runtime that swaps SYS_ADMIN for it on the way to runc.
RUNTIME = "bpf-and-perfmon"
_RUNTIME_SOURCE = """#!/usr/bin/python3
import json, os, sys
if "create" in sys.argv:
    path = sys.argv[sys.argv.index("--bundle") + 1] + "/config.json"
    with open(path) as file:
        bundle = json.load(file)
    for names in bundle["process"]["capabilities"].values():
        if "CAP_SYS_ADMIN" in names:
            names.remove("CAP_SYS_ADMIN")
            names += ["CAP_BPF", "CAP_PERFMON"]
    with open(path, "w") as file:
        json.dump(bundle, file)
os.execvp("runc", ["runc", *sys.argv[1:]])
"""

TRANSFER_BYTES = 64 << 20
READY_SECONDS = 30.0

_PREFIX = f"ofd{os.getpid() % 100000}"

_RECEIVE = """
import socket
with socket.create_server(("{address}", 5001)) as server:
    print("listening", flush=True)
    connection, _ = server.accept()
    with connection:
        count = 0
        while data := connection.recv(1 << 20):
            count += len(data)
print(count)
"""
_SEND = """
import socket
with socket.create_connection(("{address}", 5001), timeout=20) as connection:
    connection.sendall(bytes({count}))
"""


class TrafficError(Exception):
    """The switch did not do what it should. The text says what."""


_STARTED = time.monotonic()


def say(text: str) -> None:
    print(f"docker-test: {time.monotonic() - _STARTED:4.0f} s  {text}", flush=True)


def command(*words: str, check: bool = True) -> str:
    """Run a command of the host and give what it wrote. Raises ``TrafficError`` with that text if it fails."""
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if check and done.returncode:
        raise TrafficError(f"{' '.join(words)}: status {done.returncode}\n{done.stdout}")
    return done.stdout


def prepare_base(docker: Docker, work: Path) -> None:
    """Make a minimal Debian by debootstrap and import it under the name that the Dockerfile's default asks for."""
    root = work / "base"
    command("debootstrap", "--variant=minbase", "bookworm", str(root))
    with subprocess.Popen(
        ["tar", "-C", str(root), "--exclude=./var/cache/apt/archives/*.deb", "-c", "."], stdout=subprocess.PIPE
    ) as tar:
        load = docker.popen("import", "-", BASE, stdin=tar.stdout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output, _ = load.communicate()
    if load.returncode or tar.returncode:
        raise DockerError(f"docker import: {output}")
    shutil.rmtree(root)


def pip_configuration() -> dict[str, str]:
    """How pip on this machine reaches its index, from its files and environment: what a build here needs to reach it too."""
    lines = command("/usr/bin/python3", "-m", "pip", "config", "list", check=False)
    settings = dict(re.findall(r"^\S+?\.([a-z-]+)='(.*)'$", lines, flags=re.MULTILINE))
    return {
        key: value for key, value in settings.items() if key in {"index-url", "proxy", "trusted-host", "default-timeout", "cert"}
    }


def build(docker: Docker, work: Path) -> None:
    """``docker build`` with this machine's pip configuration as secrets: neither is part of the image."""
    settings = pip_configuration()
    certificates = settings.pop("cert", None) or os.environ.get("PIP_CERT")
    secrets = []
    if settings:
        configuration = work / "pip.conf"
        configuration.write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items()))
        secrets.append(f"--secret=id=pip.conf,src={configuration}")
    if certificates:
        secrets.append(f"--secret=id=certificates,src={certificates}")
    docker.run("build", "--network=host", *secrets, f"--tag={IMAGE}", str(REPOSITORY))


@contextmanager
def two_hosts() -> Iterator[dict[str, str]]:
    """Two namespaces, each with a veth whose other end stays here. Gives {the end that stays: namespace}."""
    hosts = {f"{_PREFIX}p{number}": f"{_PREFIX}h{number}" for number in (1, 2)}
    try:
        for number, (port, namespace) in enumerate(hosts.items(), start=1):
            command("ip", "netns", "add", namespace)
            command("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespace)
            command("ip", "link", "set", port, "up")
            command("ip", "-n", namespace, "link", "set", "lo", "up")
            command("ip", "-n", namespace, "address", "add", f"198.51.100.{number}/24", "dev", "eth0")
            command("ip", "-n", namespace, "link", "set", "eth0", "up")
        yield hosts
    finally:
        for port, namespace in hosts.items():
            command("ip", "link", "delete", port, check=False)
            command("ip", "netns", "delete", namespace, check=False)


def check_traffic(hosts: dict[str, str]) -> None:
    """Twenty pings without loss, then a TCP transfer complete to the byte. Waits first for the controller to connect."""
    one, two = hosts.values()
    end = time.monotonic() + READY_SECONDS
    while "1 received" not in command("ip", "netns", "exec", one, "ping", "-c1", "-W1", "198.51.100.2", check=False):
        if time.monotonic() > end:
            raise TrafficError(f"no ping got through within {READY_SECONDS:.0f} s")
        time.sleep(0.2)
    pings = command("ip", "netns", "exec", one, "ping", "-c20", "-i0.05", "-W2", "198.51.100.2", check=False)
    if "20 received" not in pings:
        raise TrafficError(f"pings were lost:\n{pings}")
    started = time.monotonic()
    receiver = ["ip", "netns", "exec", two, "/usr/bin/python3", "-c", _RECEIVE.format(address="198.51.100.2")]
    with subprocess.Popen(receiver, stdout=subprocess.PIPE, text=True) as server:
        try:
            expect_line(server, "listening")
            sender = _SEND.format(address="198.51.100.2", count=TRANSFER_BYTES)
            command("ip", "netns", "exec", one, "/usr/bin/python3", "-c", sender)
            expect_line(server, str(TRANSFER_BYTES))
        finally:
            server.kill()
    megabytes = TRANSFER_BYTES >> 20
    say(f"  20 of 20 pings; {megabytes} MiB by TCP in {time.monotonic() - started:.1f} s")


def expect_line(process: subprocess.Popen[str], expected: str) -> None:
    line = process.stdout.readline().strip() if process.stdout else ""
    if line != expected:
        raise TrafficError(f"the receiver said {line!r} where {expected!r} was due")


def programs(port: str, *namespace: str) -> list[str]:
    """What is attached to an interface: XDP and TC programs."""
    link = json.loads(command("ip", "-json", *namespace, "link", "show", "dev", port))[0]
    found = [f"xdp {link['xdp']}"] if link.get("xdp") else []
    for direction in ("ingress", "egress"):
        found += command("tc", *namespace, "filter", "show", "dev", port, direction, check=False).split("\n")
    return [line for line in found if line.startswith("xdp") or "bpf" in line]


@dataclass(frozen=True)
class Grant:
    """What ``docker run`` grants the switch. ``name`` is for people."""

    name: str
    options: tuple[str, ...]


def grants(docker: Docker) -> list[Grant]:
    """Every set of capabilities that the README promises to be enough."""
    new, old = ([f"--cap-add={name}" for name in names] for names in (CAPABILITIES, CAPABILITIES_OLD))
    if docker.version() >= (23, 0):
        return [Grant(", ".join(CAPABILITIES), tuple(new))]
    return [
        Grant(", ".join(CAPABILITIES_OLD), tuple(old)),
        Grant(", ".join(CAPABILITIES), (*old, f"--runtime={RUNTIME}")),
    ]


def wait_until_it_answers(docker: Docker, container: str) -> None:
    """Until ``ofswitch show`` has an answer. Raises ``TrafficError`` if the switch ends, or takes too long."""
    end = time.monotonic() + READY_SECONDS
    while (asked := docker.attempt("exec", container, "ofswitch", "show")).returncode:
        if docker.run("inspect", "--format={{.State.Running}}", container) != "true":
            raise TrafficError("the switch ended")
        if time.monotonic() > end:
            raise TrafficError(f"no answer within {READY_SECONDS:.0f} s: {asked.stdout}{asked.stderr}")
        time.sleep(0.2)


@contextmanager
def switch(docker: Docker, grant: Grant, network: str, ports: Iterable[str]) -> Iterator[None]:
    """The image's entry point at work, started as the README says. Its end must be clean: SIGTERM, and status 0 in time."""
    arguments = [word for port in ports for word in ("--port", port)]
    options = ["--cap-drop=ALL", *grant.options, "--read-only", "--tmpfs=/run", "--tmpfs=/tmp"]
    container = docker.run("run", "--detach", f"--network={network}", *options, IMAGE, *arguments)
    try:
        wait_until_it_answers(docker, container)
        yield
        say("  ofswitch show:\n" + docker.run("exec", container, "ofswitch", "show"))
        docker.run("stop", "--time=10", container)
        status = docker.run("inspect", "--format={{.State.ExitCode}}", container)
        if status != "0":
            raise TrafficError(f"stopped with status {status}")
    except (TrafficError, DockerError):
        logs = docker.attempt("logs", container)
        say(f"  the switch wrote:\n{logs.stdout}{logs.stderr}")
        raise
    finally:
        docker.attempt("rm", "--force", container)


def on_host_network(docker: Docker, grant: Grant) -> None:
    """The switch's ports are the host's own interfaces."""
    with two_hosts() as hosts:
        with switch(docker, grant, "host", hosts):
            check_traffic(hosts)
        left = {port: programs(port) for port in hosts}
        if any(left.values()):
            raise TrafficError(f"programs left attached: {left}")


def in_own_namespace(docker: Docker, grant: Grant) -> None:
    """A second container holds the namespace with the ports in it, as in a pod: they are there before the switch starts."""
    with two_hosts() as hosts:
        holder = docker.run("run", "--detach", "--network=none", "--cap-drop=ALL", "--entrypoint=sleep", IMAGE, "infinity")
        try:
            pid = docker.run("inspect", "--format={{.State.Pid}}", holder)
            for port in hosts:
                command("ip", "link", "set", port, "netns", pid)
                command("nsenter", f"--net=/proc/{pid}/ns/net", "ip", "link", "set", port, "up")
            with switch(docker, grant, f"container:{holder}", hosts):
                check_traffic(hosts)
        finally:
            docker.attempt("rm", "--force", holder)


def test(docker: Docker, work: Path) -> None:
    say("makes a minimal Debian as the base image")
    prepare_base(docker, work)
    say("builds the image")
    build(docker, work)
    whole, base = (int(docker.run("image", "inspect", "--format={{.Size}}", image)) for image in (IMAGE, BASE))
    say(f"built: {(whole - base) / 1e6:.0f} MB on top of the base image")
    for grant in grants(docker):
        say(f"on the host's network, with {grant.name}")
        on_host_network(docker, grant)
        say(f"in a network namespace of its own, with {grant.name}")
        in_own_namespace(docker, grant)


def _terminate(*_: object) -> None:
    raise SystemExit(143)


def main() -> int:
    signal.signal(signal.SIGTERM, _terminate)
    with tempfile.TemporaryDirectory(prefix="ofswitch-docker-") as work:
        runtime = Path(work, RUNTIME)
        runtime.write_text(_RUNTIME_SOURCE)
        runtime.chmod(0o755)
        try:
            with own_daemon(Path(work), {RUNTIME: runtime}) as docker:
                test(docker, Path(work))
        except (TrafficError, DockerError) as error:
            say(f"FAILED: {error}")
            return 1
    say("passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())

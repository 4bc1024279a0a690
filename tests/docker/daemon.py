"""A Docker daemon of one's own, without a registry: for a test that must not touch the machine's.

Invariant: when the ``with`` block ends, the daemon, its containers and images, and every file and control group that it
made outside its temporary directory are gone, whether the block worked or not.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# dockerd 20.10 makes these wherever its own roots are. Those that were not there before are removed.
_FOOTPRINT = ("/etc/docker/key.json", "/etc/docker", "/opt/containerd", "/run/docker", "/run/containerd", "/run/runc")
_START_SECONDS = 30.0
_STOP_SECONDS = 20.0


class DockerError(Exception):
    """A Docker command failed. The text is its command and what it wrote."""


@dataclass(frozen=True)
class Docker:
    """The command line client of one daemon. ``log`` is the daemon's."""

    client: str
    home: Path

    @property
    def log(self) -> Path:
        return self.home / "dockerd.log"

    def popen(self, *arguments: str, **options: object) -> subprocess.Popen[str]:
        """Start a docker command. BuildKit is on: the Dockerfile mounts secrets."""
        environment = os.environ | {
            "DOCKER_HOST": f"unix://{self.home}/docker.sock",
            "DOCKER_CONFIG": str(self.home / "client"),
            "DOCKER_BUILDKIT": "1",
        }
        return subprocess.Popen([self.client, *arguments], env=environment, text=True, **options)  # type: ignore[call-overload,no-any-return]

    def attempt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a docker command and give its status and output, whatever they are."""
        process = self.popen(*arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        output, errors = process.communicate()
        return subprocess.CompletedProcess([self.client, *arguments], process.returncode, output, errors)

    def run(self, *arguments: str) -> str:
        """Run a docker command and give its output. Raises ``DockerError`` with all that it wrote if it fails."""
        done = self.attempt(*arguments)
        if done.returncode:
            raise DockerError(f"docker {' '.join(arguments)}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout.strip()

    def version(self) -> tuple[int, int]:
        """Major and minor number of the daemon."""
        major, minor = self.run("version", "--format", "{{.Server.Version}}").split(".")[:2]
        return int(major), int(minor)


def _client(daemon: str) -> str:
    """The client that came with the daemon: another on PATH may lack the build command that BuildKit needs."""
    beside = Path(daemon).parent.parent / "bin" / "docker"
    found = str(beside) if beside.exists() else shutil.which("docker")
    if found is None:
        raise DockerError("there is a dockerd but no docker client")
    return found


@contextmanager
def own_daemon(home: Path, runtimes: Mapping[str, Path]) -> Iterator[Docker]:
    """Run dockerd with everything of its own under ``home``, without a bridge and without touching the firewall.

    ``runtimes`` are programs with runc's command line, for ``docker run --runtime``.
    """
    daemon = shutil.which("dockerd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")
    if daemon is None:
        raise DockerError("no dockerd: install docker.io")
    docker = Docker(_client(daemon), home)
    before = {path for path in _FOOTPRINT if os.path.exists(path)}
    cgroup = f"ofswitch-{os.getpid()}"
    command = [
        daemon,
        *("--iptables=false", "--ip6tables=false", "--ip-masq=false", "--ip-forward=false", "--bridge=none"),
        f"--data-root={home}/data",
        f"--exec-root={home}/exec",
        f"--pidfile={home}/docker.pid",
        f"--host=unix://{home}/docker.sock",
        f"--cgroup-parent=/{cgroup}",
        "--exec-opt=native.cgroupdriver=cgroupfs",
        *(f"--add-runtime={name}={path}" for name, path in runtimes.items()),
    ]
    with docker.log.open("w") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_until_it_answers(docker, process)
        yield docker
    finally:
        _stop(docker, process)
        _unmount(home)
        for path in _FOOTPRINT:
            if path not in before:
                _remove(path)
        _remove_cgroups(cgroup)


def _wait_until_it_answers(docker: Docker, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _START_SECONDS
    while docker.attempt("version").returncode:
        if process.poll() is not None or time.monotonic() > end:
            raise DockerError(f"dockerd did not start; its last lines:\n{docker.log.read_text()[-2000:]}")
        time.sleep(0.2)


def _stop(docker: Docker, process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        containers = docker.attempt("ps", "--all", "--quiet").stdout.split()
        if containers:
            docker.attempt("rm", "--force", "--volumes", *containers)
        process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _unmount(home: Path) -> None:
    """Unmount what a daemon that was killed left mounted, inner mounts first."""
    mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in sorted((point for point in mounted if point.startswith(f"{home}/")), reverse=True):
        subprocess.run(["umount", "--lazy", point], check=False, stdin=subprocess.DEVNULL)


def _remove(path: str) -> None:
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.exists(path):
        os.unlink(path)


def _remove_cgroups(name: str) -> None:
    """Control groups vanish by rmdir once empty, inner ones first. One directory in each hierarchy (v1) or in all (v2)."""
    root = Path("/sys/fs/cgroup")
    for top in (*root.glob(name), *root.glob(f"*/{name}")):
        for directory, _, _ in os.walk(top, topdown=False):
            try:
                os.rmdir(directory)
            except OSError as error:
                print(f"docker-test: left behind {directory}: {error}")

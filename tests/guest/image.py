"""What a guest boots: a Debian root file system, and kernels of Debian's suites. Made once, kept outside the repository.

The root file system is Debian 12 with Open vSwitch, BCC and the Python packages that pyproject.toml asks for; it is the same for
all kernels. A kernel comes with an initramfs of busybox and those modules that are wanted, nothing else.

Invariant: what is in the cache is whole (it is made beside its place, and moved there), and is made by the recipe as it is now.
"""

from __future__ import annotations

import fcntl
import hashlib
import lzma
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from debian import MIRROR, GuestError, Suite, command, fetched

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CACHE = Path(os.environ.get("OFSWITCH_GUEST_CACHE", "/var/cache/ofswitch-guest"))

RELEASE = "bookworm"
PACKAGES = (
    "ethtool",
    "iproute2",
    "iputils-ping",
    "kmod",
    "openvswitch-switch",
    "procps",
    "python3",
    "python3-bpfcc",
)
PYTHON = "3.11"
"""That of RELEASE."""
TEST_PACKAGES = ("pytest", "pytest-timeout", "hypothesis", "scapy")
IMAGE_BYTES = 2 << 30
"""Of the file system; the file has holes."""

BOOT_MODULES = ("crc32c_generic", "virtio_pci", "virtio_blk", "ext4", "9p", "9pnet_virtio")
NOT_EVERYWHERE = ("crc32c_generic",)
"""ext4 asks for it without depending on it; newer kernels have it built in."""
MODULES = (
    *("act_mirred", "bridge", "cls_bpf", "cls_matchall", "dummy", "geneve", "ip6_gre", "ip_gre", "macvlan", "openvswitch"),
    *("sch_htb", "sch_ingress", "tun", "veth", "vxlan", "8021q"),
)
_BUSYBOX = ("cp", "mkdir", "modprobe", "mount", "sh", "sleep", "switch_root")


@dataclass(frozen=True, slots=True)
class Kernel:
    """``version`` is what ``uname -r`` says in it."""

    suite: str
    version: str
    image: Path
    initramfs: Path


def _digest(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:12]


def _requirements() -> list[str]:
    """What the product needs, and of the tests' packages those that run in a guest; versions as pyproject.toml says."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    tests = [line for line in project["optional-dependencies"]["dev"] if line.partition(">")[0] in TEST_PACKAGES]
    return [*project["dependencies"], *tests]


class Cache:
    """Call ``root`` and ``kernel`` for paths; what is missing is made, which takes minutes and the network. ``say`` is told."""

    def __init__(self, directory: Path = CACHE, say: Callable[[str], None] = print) -> None:
        self._directory = directory
        self._say = say
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise GuestError(f"cannot make {directory}: {error.strerror}; OFSWITCH_GUEST_CACHE names another place") from error

    @contextmanager
    def _making(self) -> Iterator[Path]:
        """A directory to work in, in the cache; one maker at a time."""
        with (self._directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for left in self._directory.glob("making-*"):  # by one that was killed
                shutil.rmtree(left)
            with tempfile.TemporaryDirectory(prefix="making-", dir=self._directory) as work:
                yield Path(work)

    # ── the root file system ───────────────────────────────────────────────────────────────────────────────────────────
    def root(self) -> Path:
        """The image of an ext4 file system. Raises GuestError."""
        recipe = _digest(*PACKAGES, *_requirements(), (HERE / "guest-init").read_text(), RELEASE, IMAGE_BYTES)
        image = self._directory / f"root-{recipe}.ext4"
        with self._making() as work:
            if not image.exists():
                self._say(f"makes the guest's root file system: Debian {RELEASE}, a few minutes")
                self._make_root(work)
                for old in self._directory.glob("root-*.ext4"):
                    old.unlink()
                (work / "root.ext4").rename(image)
        return image

    @staticmethod
    def _make_root(work: Path) -> None:
        root = work / "root"
        fetched("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", RELEASE, root, MIRROR)
        for waste in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale", "usr/share/man"):
            shutil.rmtree(root / waste)
        fetched(
            *(
                sys.executable,
                "-m",
                "pip",
                "install",
                "-q",
                "--disable-pip-version-check",
                "--root-user-action=ignore",
                "--no-compile",
            ),
            *("--target", root / "opt/python", "--only-binary=:all:", "--implementation=cp", f"--python-version={PYTHON}"),
            *("--platform=manylinux2014_x86_64", "--platform=manylinux_2_28_x86_64", "--platform=any"),
            *_requirements(),
        )
        shutil.copy(HERE / "guest-init", root / "sbin/guest-init")
        for directory in ("source", "out"):
            (root / directory).mkdir()
        image = work / "root.ext4"
        with image.open("wb") as file:
            file.truncate(IMAGE_BYTES)
        command("mkfs.ext4", "-q", "-F", "-d", root, "-O", "^has_journal", "-E", "lazy_itable_init=0", image)

    # ── kernels ────────────────────────────────────────────────────────────────────────────────────────────────────────
    def kernel(self, suite: str, *, newest: bool = False) -> Kernel:
        """The suite's kernel: the one fetched before, unless the ``newest`` is asked for. Raises GuestError."""
        place = self._directory / f"kernel-{suite}-{_digest(*MODULES, *BOOT_MODULES, (HERE / 'initramfs-init').read_text())}"
        with self._making() as work:
            if newest or not place.exists():
                self._say(f"fetches the kernel of {suite}")
                self._make_kernel(suite, work)
                for old in self._directory.glob(f"kernel-{suite}-*"):
                    shutil.rmtree(old)
                (work / "kernel").rename(place)
        return Kernel(suite, (place / "version").read_text(), place / "vmlinuz", place / "initramfs")

    @staticmethod
    def _make_kernel(suite: str, work: Path) -> None:
        archive = Suite(suite, work / "apt")
        tree = work / "tree"
        archive.unpack(archive.newest_kernel(), tree)
        busybox = work / "busybox"
        (archive if suite == RELEASE else Suite(RELEASE, work / f"apt-{RELEASE}")).unpack(["busybox-static"], busybox)
        if not (tree / "lib").exists():  # usr-merged since Debian 13; depmod and modprobe look in lib
            (tree / "lib").symlink_to("usr/lib")
        versions = [path.name for path in (tree / "lib/modules").iterdir()]
        if len(versions) != 1:
            raise GuestError(f"the kernel of {suite} has {len(versions)} versions: {', '.join(versions)}")
        version = versions[0]
        images = [path for path in (tree / f"boot/vmlinuz-{version}", tree / f"lib/modules/{version}/vmlinuz") if path.exists()]
        if not images:
            raise GuestError(f"the kernel of {suite} ({version}) has no vmlinuz where it was looked for")
        made = work / "kernel"
        made.mkdir()
        shutil.copy(images[0], made / "vmlinuz")
        (made / "version").write_text(version)
        _make_initramfs(tree, version, next(busybox.rglob("bin/busybox")), made / "initramfs")


def _make_initramfs(tree: Path, version: str, busybox: Path, out: Path) -> None:
    command("depmod", "-b", tree, version)
    with tempfile.TemporaryDirectory(dir=out.parent.parent) as directory:
        root = Path(directory)
        first: list[str] = []
        for module in (*BOOT_MODULES, *MODULES):
            try:
                needed = command("modprobe", "-d", tree, "-S", version, "--show-depends", module)
            except GuestError:
                if module in NOT_EVERYWHERE:
                    continue
                raise
            first += [module] if module in BOOT_MODULES else []
            for line in needed.splitlines():
                kind, _, rest = line.partition(" ")
                if kind == "insmod":
                    _copy_module(Path(rest.split()[0]), tree, root)
        for listing in ("modules.builtin", "modules.order", "modules.builtin.modinfo"):
            shutil.copy(tree / "lib/modules" / version / listing, root / "lib/modules" / version / listing)
        command("depmod", "-b", root, version)
        for name in ("bin", "dev", "proc", "sys", "newroot"):
            (root / name).mkdir()
        shutil.copy(busybox, root / "bin/busybox")
        for name in _BUSYBOX:
            (root / "bin" / name).symlink_to("busybox")
        shutil.copy(HERE / "initramfs-init", root / "init")
        (root / "modules").write_text(" ".join(first) + "\n")
        names = "\n".join(str(path.relative_to(root)) for path in [root, *sorted(root.rglob("*"))])
        with out.open("wb") as file:
            done = subprocess.run(
                ["cpio", "-o", "-H", "newc", "--quiet", "--owner=0:0"], cwd=root, input=names.encode(), stdout=file, check=False
            )
        if done.returncode:
            raise GuestError(f"cpio: status {done.returncode}")


def _copy_module(source: Path, tree: Path, root: Path) -> None:
    """Uncompressed: busybox need not know how."""
    relative = Path(os.path.realpath(source)).relative_to(os.path.realpath(tree / "lib"))
    target = root / "lib" / relative.with_name(relative.name.partition(".ko")[0] + ".ko")
    target.parent.mkdir(parents=True, exist_ok=True)
    raw = source.read_bytes()
    if source.suffix == ".xz":
        raw = lzma.decompress(raw)
    elif source.suffix != ".ko":
        raise GuestError(f"{source.name}: modules compressed like that are not known here")
    target.write_bytes(raw)

"""TLS between the switch and Open vSwitch's command line tool; certificates are exchanged while it runs."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.pki import Authority
from support.running_switch import RunningSwitch, running_switch
from support.waiting import until

from appliance.config import TlsFiles
from appliance.lab.testbed import Testbed

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("ovs-ofctl") is None, reason="apt-get install openvswitch-common"),
]
PORT = 6655


def flags(files: TlsFiles) -> tuple[str, ...]:
    return ("--private-key", files.private_key, "--certificate", files.certificate, "--ca-certificate", files.ca_certificate)


@dataclass
class Secured:
    switch: RunningSwitch
    pki: Authority
    files: TlsFiles

    def ofctl(self, files: TlsFiles, *words: str) -> subprocess.CompletedProcess[str]:
        secrets = ("-p", files.private_key, "-c", files.certificate, "-C", files.ca_certificate)
        return self.switch.bed.run(["ovs-ofctl", "-O", "OpenFlow13", *secrets, words[0], f"ssl:127.0.0.1:{PORT}", *words[1:]])


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("tls")
    pki = Authority.make(folder)
    files = pki.issue("switch")
    with Testbed.of(2) as bed, running_switch(bed, folder, "--listen", f"pssl:{PORT}", *flags(files), listen=False) as switch:
        yield Secured(switch, pki, files)


def test_flows_are_set_up_over_tls(secured: Secured) -> None:
    files = secured.pki.issue("ofctl")
    assert secured.ofctl(files, "add-flow", "actions=flood").returncode == 0
    shown = secured.ofctl(files, "dump-flows")
    assert "actions=FLOOD" in shown.stdout
    assert secured.switch.bed.ping("h1", "h2").ok
    assert "connected, OpenFlow 1.3, TLSv1.3, ofctl" in secured.switch.log


def test_a_stranger_sets_up_nothing(secured: Secured, tmp_path: Path) -> None:
    flows = secured.switch.control.request("show")["flows"]
    files = Authority.make(tmp_path, "stranger").issue("mallory")
    trusting = files.model_copy(update={"ca_certificate": secured.files.ca_certificate})
    done = secured.ofctl(trusting, "add-flow", "priority=7,actions=flood")
    assert done.returncode != 0
    until(lambda: "turned away: the peer's certificate is refused" in secured.switch.log, "the refusal in the log")
    assert secured.switch.control.request("show")["flows"] == flows


def test_sighup_takes_new_certificates_and_drops_nobody(secured: Secured, tmp_path: Path) -> None:
    files = secured.pki.issue("watcher")
    secrets = ["-p", files.private_key, "-c", files.certificate, "-C", files.ca_certificate]
    command = ["ovs-ofctl", "-O", "OpenFlow13", *secrets, "monitor", f"ssl:127.0.0.1:{PORT}"]
    watcher = secured.switch.bed.start(command, env={"OVS_RUNDIR": str(tmp_path)}, stdout=subprocess.DEVNULL)

    def connected() -> list[str]:
        return [item["security"] for item in secured.switch.control.request("show")["controllers"]]

    try:
        until(lambda: connected() == ["TLSv1.3, watcher"], "the watcher")
        secured.pki.issue("renewed", stem="switch")
        secured.switch.process.send_signal(signal.SIGHUP)
        until(lambda: "certificates read again" in secured.switch.log, "certificates read again")
        until(lambda: "renewed" in greeted(secured), "the new certificate")
        until(lambda: connected() == ["TLSv1.3, watcher"], "the watcher alone")
        assert watcher.poll() is None
    finally:
        secured.switch.bed.stop(watcher)


def greeted(secured: Secured) -> str:
    """What `openssl s_client` says of the switch's certificate."""
    shown = secured.switch.bed.run(["openssl", "s_client", "-connect", f"127.0.0.1:{PORT}"])
    return shown.stdout


def test_a_switch_whose_certificates_cannot_be_used_says_which(secured: Secured, tmp_path: Path) -> None:
    files = secured.files.model_copy(update={"private_key": str(tmp_path / "none.key")})
    for command in ("check", "run"):
        words = [sys.executable, "-m", "appliance.cli.main", command, "--port", "lo", "--listen", "pssl:", *flags(files)]
        done = secured.switch.bed.run(words)
        assert done.returncode == 2
        assert f"tls: private_key {files.private_key}: cannot be read: No such file or directory" in done.stderr

"""TLS to controllers and from them, with real certificates; what is wrong with these is told."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest
from agent_support import Listener, Peer, frame, free_port, running, until
from support.pki import Authority, openssl

from appliance.agent.green import sleep
from appliance.agent.tls import Certificates, TlsError
from appliance.config import TlsFiles
from appliance.openflow.messages import BarrierReply, BarrierRequest, EchoReply, EchoRequest, FeaturesReply, FeaturesRequest


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Authority.make(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority.make(tmp_path_factory.mktemp("stranger"), "stranger")


@pytest.fixture(scope="module")
def ours(pki):
    return pki.issue("switch")


@pytest.fixture(scope="module")
def theirs(pki):
    return pki.issue("controller")


def context(files: TlsFiles, *, server: bool = False, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A controller's, as Python's own manual says."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_verify_locations(files.ca_certificate)
    made.load_cert_chain(files.certificate, files.private_key)
    if version is not None:
        made.minimum_version = made.maximum_version = version
    return made


class TlsPeer(Peer):
    """A controller with TLS: a plain non-blocking SSL socket in place of the plain one."""

    @classmethod
    def wrap(cls, plain: Peer, made: ssl.SSLContext, *, server: bool) -> TlsPeer:
        secured = made.wrap_socket(plain.socket, server_side=server, do_handshake_on_connect=False)
        secured.setblocking(False)

        def shaken() -> bool:
            try:
                secured.do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False
            return True

        until(shaken, what="the TLS handshake")
        return cls(secured)

    def send(self, *messages):
        try:
            super().send(*messages)
        except ssl.SSLWantWriteError as error:
            raise BlockingIOError from error

    def read(self) -> bool:
        try:
            return super().read()
        except ssl.SSLWantReadError:
            return True
        except ssl.SSLError as error:
            self.refusal = error.reason
            return False


def connect(port: int, files: TlsFiles, version: ssl.TLSVersion | None = None) -> TlsPeer:
    peer = TlsPeer.wrap(Peer.connect(port), context(files, version=version), server=False)
    peer.greet()
    return peer


@pytest.fixture
def box(tmp_path, ours):
    port = free_port()
    with running(tmp_path, listen=(f"pssl:{port}",), tls=ours) as box:
        box.openflow_port = port
        yield box


# ── in and out ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_controller_connects_and_is_answered(box, theirs, version, caplog):
    caplog.set_level("INFO")
    peer = connect(box.openflow_port, theirs, version)
    peer.send(FeaturesRequest(xid=7))
    assert peer.expect(FeaturesReply).datapath_id == 0x2A
    (told,) = box.connected()
    assert told["target"].startswith("ssl:127.0.0.1:")
    assert told["security"] == f"TLSv1.{version.value - 0x301}, controller"
    assert f"connected, OpenFlow 1.3, TLSv1.{version.value - 0x301}, controller" in caplog.text
    peer.close()
    until(lambda: not box.connected())


def test_one_whose_tls_breaks_is_told_of_until_it_is_gone(box, theirs):
    """OpenSSL then knows the peer's certificate no more, as since Python 3.12 where the peer ends without a word."""
    peer = connect(box.openflow_port, theirs)
    peer.send(BarrierRequest(xid=3))
    assert peer.expect(BarrierReply).xid == 3
    os.write(peer.socket.fileno(), b"\x17\x03\x03\0\x20" + bytes(32))  # a record that nobody has sealed
    told = []
    until(lambda: not told.append(box.connected()) and not told[-1])
    assert {item["security"] for items in told for item in items} <= {"TLSv1.3, controller"}
    peer.close()


def test_it_connects_to_a_controller(tmp_path, ours, theirs):
    listener = Listener()
    with running(tmp_path, controllers=(f"ssl:127.0.0.1:{listener.port}",), tls=ours) as box:
        peer = TlsPeer.wrap(listener.accept(), context(theirs, server=True), server=True)
        assert dict(pair for part in peer.socket.getpeercert()["subject"] for pair in part) == {"commonName": "switch"}
        peer.greet()
        peer.send(BarrierRequest(xid=3))
        assert peer.expect(BarrierReply).xid == 3
        assert box.connected()[0]["security"] == "TLSv1.3, controller"
        peer.close()
    listener.close()


def test_much_passes_both_ways_in_whatever_pieces(box, theirs):
    """More than sockets and TLS records hold: every byte arrives, in order."""
    peer = connect(box.openflow_port, theirs)
    echoes = [EchoRequest(os.urandom(60_000), xid=xid) for xid in range(1, 60)]
    for echo in echoes:
        data = echo
        while True:
            try:
                peer.send(data)
                break
            except BlockingIOError:  # the record is in OpenSSL already: it is to be given the same again
                peer.read()
                sleep(0.001)
    got = []
    for _ in echoes:
        reply = peer.expect(EchoReply)
        got.append((reply.xid, reply.data))
    assert got == [(echo.xid, echo.data) for echo in echoes]
    peer.close()


def test_a_frame_of_the_fast_path_comes_up_while_the_controller_sends_nothing(box, theirs):
    peer = connect(box.openflow_port, theirs)
    box.inject(1, frame(2, 1))
    peer.send(BarrierRequest(xid=1))
    assert peer.expect(BarrierReply)
    peer.close()


# ── who is turned away ─────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_controller_of_another_authority_is_turned_away_and_told(box, pki, stranger, caplog):
    files = stranger.issue("mallory").model_copy(update={"ca_certificate": str(pki.certificate)})
    peer = TlsPeer.wrap(Peer.connect(box.openflow_port), context(files), server=False)
    peer.ended()
    assert peer.refusal == "TLSV1_ALERT_UNKNOWN_CA"
    until(lambda: "turned away" in caplog.text)
    assert "turned away: the peer's certificate is refused: unable to get local issuer certificate" in caplog.text
    assert f"(ca_certificate {pki.certificate})" in caplog.text
    assert not box.connected()


def test_a_controller_without_a_certificate_is_turned_away(box, pki, caplog):
    bare = ssl.create_default_context(cafile=str(pki.certificate))
    bare.check_hostname = False
    peer = TlsPeer.wrap(Peer.connect(box.openflow_port), bare, server=False)
    peer.ended()
    until(lambda: "turned away: the peer has shown no certificate" in caplog.text)


def test_an_expired_certificate_is_turned_away(box, pki, caplog):
    peer = TlsPeer.wrap(Peer.connect(box.openflow_port), context(pki.issue("late", days=0)), server=False)
    peer.ended()
    until(lambda: "turned away: the peer's certificate is refused: certificate has expired" in caplog.text)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
def test_plain_tcp_and_old_tls_are_turned_away(box, theirs, caplog):
    plain = Peer.connect(box.openflow_port)
    plain.send(EchoRequest())
    plain.ended()
    until(lambda: "turned away: the peer does not speak TLS" in caplog.text)
    old = context(theirs)
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        TlsPeer.wrap(Peer.connect(box.openflow_port), old, server=False)
    until(lambda: "turned away: the peer speaks no TLS from 1.2 on" in caplog.text)


def test_a_controller_that_does_not_begin_is_given_up(box, caplog, monkeypatch):
    monkeypatch.setattr("appliance.agent.connections.HANDSHAKE_SECONDS", 0.1)
    silent = Peer.connect(box.openflow_port)
    silent.ended()
    until(lambda: "turned away: no TLS within 0.1 s" in caplog.text)


def test_a_controller_that_refuses_us_is_told_of_and_tried_again(tmp_path, ours, stranger, caplog):
    listener = Listener()
    files = stranger.issue("controller")
    with running(tmp_path, controllers=(f"ssl:127.0.0.1:{listener.port}",), tls=ours) as box:
        with pytest.raises(ssl.SSLError):
            TlsPeer.wrap(listener.accept(), context(files, server=True), server=True)
        until(lambda: "not connected: the peer's certificate is refused" in caplog.text)
        trusted = context(files.model_copy(update={"ca_certificate": ours.ca_certificate}), server=True)
        with pytest.raises(ssl.SSLError):
            TlsPeer.wrap(listener.accept(), trusted, server=True)
        assert box.agent.connections.describe()[0]["state"] == "disconnected"
    listener.close()


def test_a_controller_that_does_not_trust_our_authority_is_told_of(tmp_path, ours, theirs, stranger, caplog):
    listener = Listener()
    with running(tmp_path, controllers=(f"ssl:127.0.0.1:{listener.port}",), tls=ours):
        distrusts = context(theirs.model_copy(update={"ca_certificate": str(stranger.certificate)}), server=True)
        # What is raised keeps the socket: closed with something unread, it would take the alert back.
        with pytest.raises(ssl.SSLError) as refused:
            TlsPeer.wrap(listener.accept(), distrusts, server=True)
        text = f"the peer refuses our certificate: it does not trust the authority that signed it (certificate {ours.certificate})"
        until(lambda: text in caplog.text)
        del refused
    listener.close()


# ── new certificates ───────────────────────────────────────────────────────────────────────────────────────────────────
def test_changed_files_are_read_again_and_connections_go_on(tmp_path, pki, theirs, caplog):
    caplog.set_level("INFO")
    files = pki.issue("before", stem="changing")
    with running(tmp_path, listen=(f"pssl:{(port := free_port())}",), tls=files) as box:
        first = connect(port, theirs)
        Path(files.private_key).write_text("rubbish")
        until(lambda: "has no private key in PEM format" in caplog.text)
        assert caplog.text.count("the certificates from before stay in use") == 1
        second = connect(port, theirs)
        pki.issue("after", stem="changing")
        until(lambda: "certificates read again" in caplog.text)
        third = connect(port, theirs)
        for peer, name in ((first, "before"), (second, "before"), (third, "after")):
            peer.send(BarrierRequest())
            peer.expect(BarrierReply)
            assert ((("commonName", name),),) == peer.socket.getpeercert()["subject"]
        assert len(box.connected()) == 3
        for peer in (first, second, third):
            peer.close()


# ── files that cannot be used ──────────────────────────────────────────────────────────────────────────────────────────
def test_usable_files_are_used(ours):
    Certificates(ours)


@pytest.mark.parametrize("name", ["private_key", "certificate", "ca_certificate"])
def test_a_file_that_is_missing_or_something_else_is_named(tmp_path, ours, name):
    path = tmp_path / "x"
    files = ours.model_copy(update={name: str(path)})
    with pytest.raises(TlsError, match=f"^{name} {path}: cannot be read: No such file or directory$"):
        Certificates(files)
    what = "PRIVATE KEY" if name == "private_key" else "CERTIFICATE"
    path.write_bytes(b"\xff\x00")
    with pytest.raises(TlsError, match=f"^{name} {path}: has no {what.lower()} in PEM format"):
        Certificates(files)
    path.write_text(f"-----BEGIN {what}-----\nMIIB\n-----END {what}-----\n")
    with pytest.raises(TlsError, match=f"^{name} {path}: .*cannot be read"):
        Certificates(files)


def test_a_key_of_another_certificate_is_told(ours, theirs):
    with pytest.raises(TlsError, match=r"^private_key .*controller.key: does not belong to certificate .*switch.pem$"):
        Certificates(ours.model_copy(update={"private_key": theirs.private_key}))


def test_a_key_with_a_passphrase_is_told_and_nobody_is_asked_for_it(tmp_path, ours):
    path = tmp_path / "locked.key"
    openssl("pkey", "-in", ours.private_key, "-aes256", "-passout", "pass:secret", "-out", path)
    with pytest.raises(TlsError, match=f"^private_key {path}: has a passphrase"):
        Certificates(ours.model_copy(update={"private_key": str(path)}))

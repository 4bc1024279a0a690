"""Certificates, and TLS on a connected socket (specification 1.3.5, section 6.3.3).

Both sides must show a certificate that comes from the configured authority. Names in a controller's certificate are not compared
with its address: as with ``ovs-pki``, the authority is one that signs for controllers only.

Invariant: certificates that cannot be used never take the place of ones that can; and what is wrong is said with the file's name.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import socket
import ssl
from typing import Any

from appliance.agent.green import wait_readable, wait_writable
from appliance.config import TlsFiles

LOG = logging.getLogger("ofswitch.tls")

READ_BYTES = 1 << 16
_NAMES = ("private_key", "certificate", "ca_certificate")
_Signature = tuple[tuple[int, int, int] | None, ...]


class TlsError(OSError):
    """TLS cannot be, or not go on; ``strerror`` says why."""

    def __init__(self, text: str) -> None:
        super().__init__(errno.EPROTO, text)
        self.text = text

    def __str__(self) -> str:
        return self.text


# ── certificates ───────────────────────────────────────────────────────────────────────────────────────────────────────
def _read(files: TlsFiles, name: str, what: str) -> str:
    """The text of one of the files. Raises TlsError if it cannot be read or has no ``what`` (CERTIFICATE, PRIVATE KEY)."""
    path = getattr(files, name)
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            text = file.read()
    except OSError as error:
        raise TlsError(f"{name} {path}: cannot be read: {error.strerror}") from error
    if not re.search(rf"-----BEGIN [A-Z ]*{what}-----", text):
        raise TlsError(f"{name} {path}: has no {what.lower()} in PEM format (-----BEGIN …{what}-----)")
    return text


def _context(files: TlsFiles, protocol: int) -> ssl.SSLContext:
    """Raises TlsError."""
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(cadata=_read(files, "ca_certificate", "CERTIFICATE"))
    except ssl.SSLError as error:
        raise TlsError(f"ca_certificate {files.ca_certificate}: has a certificate that cannot be read") from error
    try:
        ssl.SSLContext(protocol).load_verify_locations(cadata=_read(files, "certificate", "CERTIFICATE"))
    except ssl.SSLError as error:
        raise TlsError(f"certificate {files.certificate}: has a certificate that cannot be read") from error
    _read(files, "private_key", "PRIVATE KEY")

    def has_passphrase() -> str:
        raise TlsError(f"private_key {files.private_key}: has a passphrase, which nobody can type here; take it off: openssl pkey")

    try:
        context.load_cert_chain(files.certificate, files.private_key, has_passphrase)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsError(f"private_key {files.private_key}: does not belong to certificate {files.certificate}") from error
        if error.reason in ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"):
            raise TlsError(f"certificate {files.certificate}: is too weak ({_spoken(error)})") from error
        raise TlsError(f"private_key {files.private_key}: cannot be read ({_spoken(error)})") from error
    return context


class Certificates:
    """What the files hold, read again when they change. ``client`` and ``server`` are for new connections; others go on."""

    def __init__(self, files: TlsFiles) -> None:
        """Raises TlsError."""
        self.files = files
        self._signature = self._seen = self._sign()
        self.client = _context(files, ssl.PROTOCOL_TLS_CLIENT)
        self.server = _context(files, ssl.PROTOCOL_TLS_SERVER)

    def refresh(self) -> None:
        """Wanted about once a second: read the files again if they have changed, once they have not for a second.

        Those that cannot be used are told in the log, once.
        """
        before, self._seen = self._seen, self._sign()
        if self._seen == before != self._signature:
            self.reload()

    def reload(self) -> None:
        """Read the files again."""
        self._signature = self._sign()
        try:
            client, server = (_context(self.files, kind) for kind in (ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER))
        except TlsError as error:
            LOG.error("%s; the certificates from before stay in use", error)
            return
        self.client, self.server = client, server
        LOG.info("certificates read again; new connections use them")

    def _sign(self) -> _Signature:
        return tuple(_sign(getattr(self.files, name)) for name in _NAMES)


def _sign(path: str) -> tuple[int, int, int] | None:
    """What changes when the file does; None if it is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


# ── words ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
_REFUSALS = {
    "UNKNOWN_CA": "it does not trust the authority that signed it",
    "BAD_CERTIFICATE": "it is bad",
    "CERTIFICATE_EXPIRED": "it has expired",
    "CERTIFICATE_REVOKED": "it is revoked",
    "CERTIFICATE_UNKNOWN": "for a reason that it does not tell",
    "UNSUPPORTED_CERTIFICATE": "it is of an unsupported kind",
    "CERTIFICATE_REQUIRED": "it saw none",
    "DECRYPT_ERROR": "its signature does not hold",
}
_REASONS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the peer has shown no certificate",
    "WRONG_VERSION_NUMBER": "the peer does not speak TLS",
    "HTTP_REQUEST": "the peer does not speak TLS",
    "UNEXPECTED_EOF_WHILE_READING": "closed by the peer in the TLS handshake",
    "UNSUPPORTED_PROTOCOL": "the peer speaks no TLS from 1.2 on",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the peer speaks no TLS from 1.2 on",
    "NO_SHARED_CIPHER": "the peer and the switch have no cipher in common",
}


def _spoken(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).replace("_", " ").lower()


def _words(error: ssl.SSLError, files: TlsFiles) -> str:
    """What went wrong between the peer and us."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the peer's certificate is refused: {error.verify_message} (ca_certificate {files.ca_certificate})"
    reason = "UNEXPECTED_EOF_WHILE_READING" if isinstance(error, ssl.SSLEOFError) else error.reason or ""
    _, is_alert, alert = reason.partition("ALERT_")
    if is_alert and alert in _REFUSALS:
        return f"the peer refuses our certificate: {_REFUSALS[alert]} (certificate {files.certificate})"
    return _REASONS.get(reason, f"TLS: {_spoken(error)}")


# ── one connection ─────────────────────────────────────────────────────────────────────────────────────────────────────
class TlsTransport:
    """``channel.Transport`` with TLS in it. ``connected`` is a connected socket that does not block."""

    def __init__(self, connected: socket.socket, certificates: Certificates, *, server: bool) -> None:
        self.socket = connected
        self._files = certificates.files
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = certificates.server if server else certificates.client
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server)
        self._rest = memoryview(b"")
        """Encrypted, and not gone out."""
        self.security = ""
        """Version of the protocol and the peer's name, for people: from the handshake on, also when TLS has broken."""

    @property
    def pending(self) -> int:
        return len(self._rest) + self._outgoing.pending

    def handshake(self) -> None:
        """Wait until each side has accepted the other (a peer that speaks TLS 1.3 may still refuse us). Raises OSError."""
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush_and_wait()
                wait_readable(self.socket.fileno())
                with contextlib.suppress(BlockingIOError):
                    self._receive()
            except ssl.SSLError as error:
                with contextlib.suppress(OSError):  # the alert that says why
                    self.flush()
                raise TlsError(_words(error, self._files)) from error
        subject: Any = (self._tls.getpeercert() or {}).get("subject", ())  # typeshed knows it too loosely
        names = dict(pair for part in subject for pair in part)
        self.security = f"{self._tls.version()}, {names.get('commonName', 'a peer without a name')}"
        self._flush_and_wait()

    def _flush_and_wait(self) -> None:
        while self.pending:
            try:
                self.flush()
            except BlockingIOError:
                wait_writable(self.socket.fileno())

    def recv(self) -> bytes:
        while True:
            try:
                return self._tls.read(READ_BYTES)
            except ssl.SSLWantReadError:
                self._receive()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""  # the end, announced or not: OpenFlow's messages have their own lengths
            except ssl.SSLError as error:
                raise TlsError(_words(error, self._files)) from error

    def _receive(self) -> None:
        """Feed TLS what has come. Raises BlockingIOError if that is nothing."""
        data = self.socket.recv(READ_BYTES)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def send(self, data: memoryview) -> int:
        self.flush()
        try:
            count = self._tls.write(data)
        except ssl.SSLError as error:
            raise TlsError(_words(error, self._files)) from error
        with contextlib.suppress(BlockingIOError):  # the rest goes with what comes next, or by ``flush``
            self.flush()
        return count

    def flush(self) -> None:
        while True:
            while self._rest:
                self._rest = self._rest[self.socket.send(self._rest) :]
            if not self._outgoing.pending:
                return
            self._rest = memoryview(self._outgoing.read())

    def close(self) -> None:
        """Say goodbye, if the peer takes it."""
        with contextlib.suppress(OSError):
            self._tls.unwrap()
        with contextlib.suppress(OSError):
            self.flush()
        self.socket.close()

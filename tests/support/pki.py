"""Certificates as a user makes them, by the ``openssl`` command."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from appliance.config import TlsFiles

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def openssl(*words: object) -> None:
    done = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Authority:
    """Signs what it is asked to sign."""

    folder: Path
    name: str = "authority"

    @classmethod
    def make(cls, folder: Path, name: str = "authority") -> Authority:
        made = cls(folder, name)
        usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")  # which Python 3.13's default context asks of it
        openssl("req", "-x509", *KEY, "-keyout", made._key, "-out", made.certificate, "-subj", f"/CN={name}", "-days", 2, *usage)
        return made

    @property
    def certificate(self) -> Path:
        return self.folder / f"{self.name}.pem"

    @property
    def _key(self) -> Path:
        return self.folder / f"{self.name}.key"

    def issue(self, name: str, days: int = 2, stem: str | None = None) -> TlsFiles:
        """A new key and a certificate for ``name``, in the files ``stem``.key and ``stem``.pem; the authority is this one.
        With no ``days`` it has expired."""
        key, certificate, request = (self.folder / f"{stem or name}.{suffix}" for suffix in ("key", "pem", "csr"))
        openssl("req", *KEY, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        signs = ("-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial")
        openssl("x509", "-req", "-in", request, *signs, "-days", days, "-out", certificate)
        return TlsFiles(private_key=str(key), certificate=str(certificate), ca_certificate=str(self.certificate))

"""A test authority: certificates for tests, made with the openssl that every host has."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc")


@dataclass(frozen=True)
class Authority:
    """An authority that lives in a directory, as `ca.pem` and `ca.key`."""

    directory: Path

    def __post_init__(self) -> None:
        self._openssl("req", "-x509", *_CURVE, "-subj", "/CN=test authority", "-days", "2", *self._files("ca"))

    def issue(self, name: str, chain: str = "cert.pem", key: str = "key.pem") -> tuple[Path, Path]:
        """Write a certificate for a host name and 127.0.0.1, and its key; return both paths."""
        names = f"subjectAltName=DNS:{name},IP:127.0.0.1"
        certificate, private = self.directory / chain, self.directory / key
        signed = ("-CA", self.directory / "ca.pem", "-CAkey", self.directory / "ca.key", "-addext", names)
        output = ("-out", certificate, "-keyout", private)
        self._openssl("req", "-x509", *_CURVE, "-subj", f"/CN={name}", "-days", "2", *signed, *output)
        return certificate, private

    def client(self) -> ssl.SSLContext:
        """Return what a client trusts the authority with."""
        return ssl.create_default_context(cafile=str(self.directory / "ca.pem"))

    def _files(self, name: str) -> tuple[str | Path, ...]:
        return ("-out", self.directory / f"{name}.pem", "-keyout", self.directory / f"{name}.key")

    def _openssl(self, *arguments: str | Path) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)

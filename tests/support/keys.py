"""An API server's keys: of elliptic curves, as it takes a third of a second of a processor to find one of RSA."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_OPENSSL = "/usr/bin/openssl"
_CURVE = "prime256v1"


def write_signing_key(path: Path) -> None:
    """Write the key that signs the tokens of service accounts."""
    _run("ecparam", "-name", _CURVE, "-genkey", "-noout", "-out", str(path))


def write_certificate(folder: Path, addresses: Sequence[str]) -> None:
    """Write a certificate that is its own authority, and its key, under the names at which an API server looks for its own.

    Args:
        folder: the server's `--cert-dir`.
        addresses: at which it is asked, besides the name of its Service.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = ",".join(["DNS:kubernetes.default.svc", *(f"IP:{each}" for each in addresses)])
    new = ("-x509", "-nodes", "-newkey", "ec", "-pkeyopt", f"ec_paramgen_curve:{_CURVE}", "-days", "30")
    said = ("-subj", "/CN=kube-apiserver", "-addext", f"subjectAltName={names}")
    written = ("-keyout", str(folder / "apiserver.key"), "-out", str(folder / "apiserver.crt"))
    _run("req", *new, *said, *written)


def _run(*arguments: str) -> None:
    subprocess.run([_OPENSSL, *arguments], check=True, capture_output=True)

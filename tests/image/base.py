"""The base of the build: Debian, with what this machine needs to reach packages. Nothing of it gets into the image.

Its registry is asked for it; where that cannot be reached, it is made of Debian's packages. In both cases the settings of
apt and pip on this machine, and the authorities that it trusts, are laid over it: a network may have a mirror, a proxy or an
authority of its own.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.uv import pip_settings

if TYPE_CHECKING:
    from tests.image.builder import Builder

RELEASE = "bookworm"
REPOSITORY = "localhost/istio/install-cni-base"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
SOURCES = "etc/apt/sources.list.d/debian.sources"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

_PIP_SETTINGS = ("cert", "client-cert", "extra-index-url", "index-url", "proxy", "timeout", "trusted-host")


def base(builder: Builder, reference: str, folder: Path) -> str:
    """Make the base unless it is here from an earlier build with the same settings, and return its name.

    Args:
        builder: what to make it with.
        reference: the image that the Dockerfile names.
        folder: an empty one to work in.

    Raises:
        SystemExit: if it can neither be got nor made.
    """
    files = settings()
    name = f"{REPOSITORY}:{hashlib.sha256(json.dumps([reference, files], sort_keys=True).encode()).hexdigest()[:12]}"
    if builder.has(name):
        return name
    for inside, text in files.items():
        (folder / "machine" / inside).parent.mkdir(parents=True, exist_ok=True)
        (folder / "machine" / inside).write_text(text)
    if refused := builder.pull(reference):
        print(f"image: {reference} cannot be had, a Debian {RELEASE} is made instead ({refused})", flush=True)
        _make(folder / "debian.tar", folder / "machine" / SOURCES)
        first = "FROM scratch\nADD debian.tar /\n"
    else:
        first = f"FROM {reference}\n"
    (folder / "Dockerfile").write_text(f"{first}COPY machine /\n")
    builder.build(name, folder, {})
    return name


def _make(tar: Path, sources: Path) -> None:
    program = shutil.which("mmdebstrap")
    if program is None:
        raise SystemExit("image: saw no mmdebstrap to make a base with, expected it; `make setup` installs it")
    options = [f"--aptopt={line}" for line in _apt_settings()]
    mirrors = [str(sources)] if sources.exists() else []
    command = [program, "--quiet", "--variant=minbase", *options, RELEASE, str(tar), *mirrors]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise SystemExit(f"image: mmdebstrap failed, and said last:\n{ended.stderr[-4000:]}")


def settings() -> dict[str, str]:
    """Write the settings of apt and pip on this machine as files, with the certificates that they name.

    Those get a folder of their own: Debian's package of authorities would write its own file over this machine's.

    Returns:
        Texts, by their path in the base.
    """
    apt = _apt_settings()
    pip = {key: value for key, value in pip_settings().items() if key in _PIP_SETTINGS}
    if AUTHORITIES.exists() and not any("::CaInfo" in line for line in apt):
        apt.append(f'Acquire::https::CaInfo "{AUTHORITIES}";')
    files = {SOURCES: _apt_sources()}
    files["etc/apt/apt.conf.d/zz-machine"] = "".join(f"{line}\n" for line in apt)
    files["etc/pip.conf"] = "[global]\n" + "".join(f"{key} = {value}\n" for key, value in pip.items())
    certificates = {pip[key] for key in ("cert", "client-cert") if key in pip}
    certificates |= {path for line in apt for path in re.findall(r'::CaInfo "(/[^"]+)"', line)}
    for number, path in enumerate(sorted(certificates)):
        inside = f"etc/ssl/of-the-machine/{number}.pem"
        files = {name: text.replace(path, f"/{inside}") for name, text in files.items()} | {
            inside: Path(path).read_text()
        }
    return {name: text for name, text in files.items() if text}


def _apt_settings() -> list[str]:
    """List how apt gets its files on this machine: proxies, authorities, patience."""
    lines = _told("apt-config", "dump").splitlines()
    ways = ("Acquire::http", "Acquire::https", "Acquire::ftp", "Acquire::Check-", "Acquire::Retries")
    return [line for line in lines if line.startswith(ways) and not line.endswith('"";') and "Auto-Detect" not in line]


def _apt_sources() -> str:
    """Write the mirrors of this Debian that this machine uses, in apt's format deb822; empty if it uses none."""
    wanted = ("Created-By: Packages", "Origin: Debian", f"Codename: {RELEASE}*")
    told = _told("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", *wanted)
    return "\n".join(
        f"Types: deb\nURIs: {uri}\nSuites: {suite}\nComponents: {component}\nSigned-By: {KEYRING}\n"
        for uri, suite, component in sorted({tuple(line.split()) for line in told.splitlines()})
        if suite.startswith(RELEASE) and component == "main"
    )


def _told(*command: str) -> str:
    """Run a command of apt's; where there is no apt, it says nothing."""
    program = shutil.which(command[0])
    if program is None:
        return ""
    return subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False).stdout

"""uv gets packages from where pip's settings on a machine say, and only those with the hash that is asked for."""

from __future__ import annotations

import hashlib
import os
import shutil
import ssl
import subprocess
import sys
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kernel

WHEEL = "thing-1-py3-none-any.whl"
OWN = ("PIP_", "UV_", "SSL_", "REQUESTS_")  # variables of the machine that runs the tests


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """A folder with a package `thing`, laid out as an index."""
    folder = tmp_path / "simple" / "thing"
    folder.mkdir(parents=True)
    about = {"METADATA": "Metadata-Version: 2.1\nName: thing\nVersion: 1\n", "RECORD": ""}
    about["WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        wheel.writestr("thing.py", "")
        for name, text in about.items():
            wheel.writestr(f"thing-1.dist-info/{name}", text)
    (folder / "index.html").write_text(f'<a href="{WHEEL}">{WHEEL}</a>')
    return folder


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """A certificate that no machine trusts, with its key, for 127.0.0.1."""
    made = tmp_path / "authority.pem"
    options = ["-newkey", "rsa:2048", "-nodes", "-subj", "/CN=mirror", "-addext", "subjectAltName=IP:127.0.0.1"]
    options += ["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", str(made), "-out", f"{made}.certificate"]
    subprocess.run(["/usr/bin/openssl", "req", "-x509", *options], check=True, capture_output=True)
    with made.open("a") as both:
        both.write(Path(f"{made}.certificate").read_text())
    return made


@pytest.fixture
def url(mirror: Path, authority: Path) -> Iterator[str]:
    """Where the folder is served."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(mirror.parents[1]))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(authority)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever).start()
        yield f"https://127.0.0.1:{server.server_port}/simple"
        server.shutdown()


def install(tmp_path: Path, settings: str, hash_: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Install `thing` into the folder `site`, with a pip.conf."""
    (tmp_path / "pip.conf").write_text(f"[global]\n{settings}")
    (tmp_path / "requirements.txt").write_text(f"thing==1 --hash=sha256:{hash_}\n")
    arguments = [
        "pip",
        "install",
        "--require-hashes",
        "--target",
        f"{tmp_path}/site",
        "-r",
        f"{tmp_path}/requirements.txt",
    ]
    own = {key: value for key, value in os.environ.items() if not key.startswith(OWN)}
    own |= {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), "UV_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "tests.support.uv", *arguments]
    return subprocess.run(command, env=own | variables, capture_output=True, text=True, timeout=100, check=False)


def hash_of(mirror: Path) -> str:
    return hashlib.sha256((mirror / WHEEL).read_bytes()).hexdigest()


def test_a_mirror_with_an_authority_of_its_own(tmp_path: Path, mirror: Path, authority: Path, url: str) -> None:
    settings = f"index-url = {url}\ncert = {authority}\nfind-links = {tmp_path}/absent\n"
    done = install(tmp_path, settings, hash_of(mirror))
    assert (tmp_path / "site" / "thing.py").exists(), done.stderr


def test_a_variable_goes_before_a_file(tmp_path: Path, mirror: Path, authority: Path, url: str) -> None:
    settings = f"index-url = https://mirror.invalid/simple\ncert = {authority}\n"
    done = install(tmp_path, settings, hash_of(mirror), PIP_INDEX_URL=url)
    assert (tmp_path / "site" / "thing.py").exists(), done.stderr


def test_folders_without_any_index(tmp_path: Path, mirror: Path) -> None:
    settings = (
        f"no-index = true\nindex-url = https://mirror.invalid/simple\nfind-links =\n    {tmp_path}\n    {mirror}\n"
    )
    done = install(tmp_path, settings, hash_of(mirror))
    assert (tmp_path / "site" / "thing.py").exists(), done.stderr


def test_another_hash_is_refused_even_of_what_is_cached(tmp_path: Path, mirror: Path) -> None:
    settings = f"no-index = true\nfind-links = {mirror}\n"
    assert install(tmp_path, settings, hash_of(mirror)).returncode == 0
    shutil.rmtree(tmp_path / "site")
    done = install(tmp_path, settings, "0" * 64)
    assert done.returncode == 1
    assert "hash" in done.stderr.lower()
    assert not (tmp_path / "site" / "thing.py").exists()

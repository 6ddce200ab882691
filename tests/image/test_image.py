"""The image as it was built: what is in it, what is not, and that all of it works with nothing else around."""

from __future__ import annotations

import json
import re
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import certifi
import pytest

from installer.version import RELEASE
from plugin.backend import Backend
from tests.image import contents
from tests.image.base import settings
from tests.image.build import NAME, archive

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.e2e

LARGEST = 120_000_000  # bytes of all files
PROGRAMS = {
    "usr/bin": r"python3\.11",
    "usr/sbin": r"(ip6?tables|xtables)-(nft|legacy)(-multi|-save|-restore)?",
    "usr/local/bin": r"install-cni",
    "opt/istio-cni": r"istio-cni",
}

IMPORT_ALL = """
import importlib, pkgutil, installer, plugin
for package in (installer, plugin):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
"""
LINKED_WITH = """
import pathlib, subprocess
loader, = {*pathlib.Path("/lib").glob("*-linux-gnu/ld-linux-*.so.*")}
for path in pathlib.Path("/usr").rglob("*"):
    if path.is_file() and path.open("rb").read(4) == b"\\x7fELF":
        done = subprocess.run([loader, "--list", path], capture_output=True, text=True)
        if done.returncode:
            print(done.stderr)
"""
TRY_BACKEND = """
import concurrent.futures, sys
from plugin.backend import Backend
from plugin.preflight import try_backend
with concurrent.futures.ThreadPoolExecutor() as threads:
    print(dict(threads.submit(try_backend, Backend(sys.argv[1])).result().missing))
"""
IN_OWN_PROCESS = """
import concurrent.futures
from plugin import netns
from plugin.session_nft import OwnProcess
def work():
    with netns.scratch() as fd, netns.entered(fd):
        OwnProcess().run("add table ip x")
        return OwnProcess().run("list tables")
with concurrent.futures.ThreadPoolExecutor() as threads:
    print(threads.submit(work).result(), end="")
"""
CACHED = """
import sys, installer.agent.main
print(*(module.__cached__ for module in sys.modules.values() if getattr(module, "__cached__", None)))
"""
POD = {
    "kind": "Pod",
    "metadata": {"name": "web", "namespace": "shop", "annotations": {"sidecar.istio.io/status": "{}"}},
    "spec": {"containers": [{"name": "app"}, {"name": "istio-proxy"}]},
}


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The image's files."""
    folder = tmp_path_factory.mktemp("image") / "root"
    contents.unpack(archive(), folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def paths(root: Path) -> list[Path]:
    return [*root.rglob("*")]


def tried(root: Path, *command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command with the image for its root, all of it read-only but for /proc, and nothing in its environment."""
    inside = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'
    around = ["/usr/bin/unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child"]
    return subprocess.run(
        [*around, "/bin/sh", "-c", inside, str(root), *command],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def run(root: Path, *command: str, stdin: str = "") -> str:
    """Run a command so that has to succeed, and return its stdout."""
    ended = tried(root, *command, stdin=stdin)
    assert ended.returncode == 0, f"{command}: status {ended.returncode}: {ended.stderr}"
    return ended.stdout


def python(root: Path, program: str, *arguments: str) -> str:
    return run(root, "/usr/bin/python3.11", "-I", "-c", program, *arguments)


def test_image_has_its_name_and_starts_the_agent() -> None:
    with tarfile.open(archive()) as opened:
        assert contents.names(opened) == [NAME]
        started = contents.config(opened)["config"]
    assert [*started["Entrypoint"], *started["Cmd"]] == ["/usr/local/bin/install-cni", "run"]
    assert {each.partition("=")[0] for each in started.get("Env", [])} <= {"PATH"}


def test_image_prints_its_version_and_options(root: Path) -> None:
    assert run(root, "/usr/local/bin/install-cni", "--version") == f"install-cni, version {RELEASE}\n"
    assert "--cni-bin-dir" in run(root, "/usr/local/bin/install-cni", "run", "--help")


def test_image_size_is_bounded(paths: list[Path]) -> None:
    assert sum(path.lstat().st_size for path in paths if path.is_file()) <= LARGEST


def test_image_has_only_known_programs(root: Path, paths: list[Path]) -> None:
    executable = {
        path.relative_to(root)
        for path in paths
        if path.is_file()
        and path.stat().st_mode & 0o111
        and not path.suffix.startswith(".so")
        and ".so." not in path.name
    }
    unknown = {path for path in executable if not re.fullmatch(PROGRAMS.get(str(path.parent), ""), path.name)}
    assert not {path for path in unknown if path.suffix != ".py"}
    assert {str(path.parent) for path in executable - unknown} == {*PROGRAMS}


def test_image_has_no_package_manager(root: Path) -> None:
    absent = ("pip", "setuptools", "wheel", "ensurepip", "distutils", "venv")
    found = [path for name in absent for path in root.glob(f"usr/**/python3.11/**/{name}")]
    assert not [path for path in found if path.is_dir()]


def test_image_files_are_roots_without_setuid_or_world_write(paths: list[Path]) -> None:
    for path in paths:
        seen = path.lstat()
        assert (seen.st_uid, seen.st_gid) == (0, 0), path
        assert not seen.st_mode & (stat.S_ISUID | stat.S_ISGID), path
        assert path.is_file() or path.is_dir() or path.is_symlink(), path
        assert path.name == "tmp" or path.is_symlink() or not seen.st_mode & stat.S_IWOTH, path


def test_image_has_no_trace_of_the_build_machine(root: Path, paths: list[Path]) -> None:
    certificate = re.compile(rb"-----BEGIN [A-Z ]+-----.*?-----END [A-Z ]+-----", re.DOTALL)
    known = {*certificate.findall(Path(certifi.where()).read_bytes())}
    texts = settings()
    own = {text.encode() for name, text in texts.items() if not name.endswith(".pem")}
    own |= {found for text in texts.values() for found in certificate.findall(text.encode())} - known
    assert own, "apt has settings on each machine that can build it"
    for path in paths:
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            assert not [text for text in own if text in content], path
    assert {path.name for path in (root / "etc").iterdir()} == {"group", "os-release", "passwd", "protocols"}


def test_image_has_record_and_licence_of_each_debian_package(root: Path) -> None:
    records = [*(root / "var/lib/dpkg/status.d").iterdir()]
    assert {"iptables", "libc6", "libnftables1", "libssl3", "python3.11-minimal"} <= {path.name for path in records}
    for record in records:
        assert re.search(r"^Version: \S", record.read_text(), re.MULTILINE)
        assert (root / "usr/share/doc" / record.name / "copyright").stat().st_size


def test_image_has_every_linked_library(root: Path) -> None:
    assert python(root, LINKED_WITH) == ""


def test_image_imports_every_module(root: Path) -> None:
    python(root, IMPORT_ALL)


def test_image_has_compiled_modules(root: Path) -> None:
    cached = python(root, CACHED).split()
    assert len(cached) > 300
    assert not [path for path in cached if not (root / path.lstrip("/")).is_file()]


@pytest.mark.parametrize("backend", Backend)
def test_every_backend_in_the_image_has_all_features(root: Path, backend: Backend) -> None:
    assert python(root, TRY_BACKEND, backend.value) == "{}\n"


def test_libnftables_runs_in_a_process_of_its_own_in_the_image(root: Path) -> None:  # F45
    assert python(root, IN_OWN_PROCESS) == "table ip x\n"


def test_image_explains_a_pod(root: Path) -> None:
    said = run(root, "/usr/local/bin/install-cni", "explain", "-f", "-", "-o", "json", stdin=json.dumps(POD))
    assert '"redirect"' in said


def test_plugin_of_the_image_runs_in_an_empty_root(root: Path, tmp_path: Path) -> None:
    shutil.copy2(root / "opt/istio-cni/istio-cni", tmp_path)
    ended = subprocess.run(
        ["/usr/sbin/chroot", str(tmp_path), "/istio-cni"],
        env={"CNI_COMMAND": "VERSION"},
        input=b'{"cniVersion":"1.0.0"}',
        capture_output=True,
        check=True,
    )
    assert "1.0.0" in json.loads(ended.stdout)["supportedVersions"]

"""Builds kube-apiserver and kubectl from their published modules, once: `make kube`, or `python -m tests.kube.build`.

They come into `${XDG_CACHE_HOME:-~/.cache}/istio-cni/kube/<version>/bin`. A stamp beside them, written last, says what they
were built from; while it agrees with go.mod and go.sum there is nothing to do.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import deque
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(__file__).parent
COMMANDS = ("kube-apiserver", "kubectl")
SECONDS_BETWEEN_WORDS = 15
SLOWEST_STOP = 10.0  # seconds that the compiler is given to end after Ctrl-C

_GO_MOD = (SOURCE / "go.mod").read_text()


def _stated(pattern: str) -> str:
    found = re.search(pattern, _GO_MOD, re.MULTILINE)
    if not found:
        raise SystemExit(f"kube: {SOURCE / 'go.mod'} has no line like {pattern!r}, expected one")
    return found[1]


VERSION = _stated(r"^\s*k8s\.io/kubernetes (v\S+)")
GO_AT_LEAST = _stated(r"^go (\d+\.\d+)")


def folder() -> Path:
    """Return where this version's programs are, or will be."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(cache) if cache.startswith("/") else Path.home() / ".cache"
    return base / "istio-cni" / "kube" / VERSION / "bin"


def is_built() -> bool:
    """Whether the programs are there and are what go.mod and go.sum say."""
    stamp = folder() / ".built-from"
    return stamp.is_file() and stamp.read_text() == _source() and all((folder() / name).is_file() for name in COMMANDS)


def build() -> None:
    """Build what is not built yet, with a word on how far it is.

    Raises:
        SystemExit: with what is missing or what failed.
    """
    if is_built():
        print(f"kube: Kubernetes {VERSION} is in {folder()}")
        return
    folder().mkdir(parents=True, exist_ok=True)
    with _alone():
        if is_built():  # by the one that we waited for
            return
        go = _go()
        print(
            f"kube: building {' and '.join(COMMANDS)} {VERSION} into {folder()}; the first time takes about ten minutes"
        )
        with tempfile.TemporaryDirectory(prefix=".new-", dir=folder()) as unfinished:
            for name in COMMANDS:
                _compile(go, name, Path(unfinished))
            (folder() / ".built-from").unlink(missing_ok=True)
            for name in COMMANDS:
                (Path(unfinished) / name).rename(folder() / name)
        (folder() / ".built-from").write_text(_source())


def _source() -> str:
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum"):
        digest.update((SOURCE / name).read_bytes())
    digest.update(_linker_flags().encode())
    return digest.hexdigest()


def _linker_flags() -> str:
    """Have the programs know their version: built from modules alone they call themselves v0.0.0."""
    major, minor = VERSION.removeprefix("v").split(".")[:2]
    facts = {"gitVersion": VERSION, "gitMajor": major, "gitMinor": minor}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(["-s -w", *(f"-X {p}.{name}={value}" for p in packages for name, value in facts.items())])


@contextmanager
def _alone() -> Iterator[None]:
    """Hold a lock, which the kernel lets go of when we end, however we end."""
    with (folder().parent / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("kube: another build is running; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _go() -> Path:
    """Find a Go of at least go.mod's release; where there is none, install one into this virtual environment."""
    packaged = Path(sysconfig.get_path("purelib")) / "go" / "bin" / "go"
    on_path = shutil.which("go")
    for go in (Path(on_path) if on_path else None, Path("/usr/local/go/bin/go"), packaged):
        if go and _is_recent(go):
            return go
    if sys.prefix == sys.base_prefix:
        raise SystemExit(
            f"kube: no Go {GO_AT_LEAST} or newer on PATH or in /usr/local/go; install one, or run `make kube`, which has a "
            "virtual environment to install it into"
        )
    print(f"kube: no Go {GO_AT_LEAST} or newer here; installing one into {sys.prefix}")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    subprocess.run([*pip, "-r", str(SOURCE / "go-requirements.txt")], check=True)
    if not _is_recent(packaged):
        raise SystemExit(f"kube: {packaged} does not run after its installation, expected Go {GO_AT_LEAST} or newer")
    return packaged


def _is_recent(go: Path) -> bool:
    try:
        answer = subprocess.run(
            [go, "env", "GOVERSION"], env=_environment(), capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return False
    found = re.match(r"go(\d+)\.(\d+)", answer.stdout)
    wanted = tuple(int(part) for part in GO_AT_LEAST.split("."))
    return found is not None and (int(found[1]), int(found[2])) >= wanted


def _environment() -> dict[str, str]:
    return os.environ | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}


def _compile(go: Path, name: str, into: Path) -> None:
    package = f"k8s.io/kubernetes/cmd/{name}"
    print(f"kube: {name}: getting its modules", flush=True)
    total = sum(1 for _ in _lines(go, "list", "-deps", package))
    started, said = time.monotonic(), 0.0
    build = ("build", "-v", "-trimpath", "-ldflags", _linker_flags(), "-o", f"{into}/", package)
    for compiled, _ in enumerate(_lines(go, *build), 1):  # one line a package, those in Go's own cache left out
        elapsed = time.monotonic() - started
        if elapsed - said >= SECONDS_BETWEEN_WORDS:
            print(f"kube: {name}: {compiled} of at most {total} packages after {elapsed:.0f} s", flush=True)
            said = elapsed
    print(f"kube: {name}: built in {time.monotonic() - started:.0f} s", flush=True)


def _lines(go: Path, *arguments: str) -> Iterator[str]:
    """Run Go in the folder of go.mod, and yield what it says as it says it.

    Raises:
        SystemExit: with the last that it said, if it fails.
    """
    command = [str(go), *arguments]
    process = subprocess.Popen(
        command, cwd=SOURCE, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    last = deque[str](maxlen=40)
    try:
        assert process.stdout
        for line in process.stdout:
            last.append(line)
            if not line.startswith("go: "):
                yield line
        if process.wait() != 0:
            raise SystemExit(f"kube: `go {arguments[0]} {arguments[-1]}` failed, and said last:\n{''.join(last)}")
    finally:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """End Go and what it started: on SIGINT it ends its compilers, on SIGKILL it would not."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(SLOWEST_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout:
        process.stdout.close()


if __name__ == "__main__":
    try:
        build()
    except KeyboardInterrupt:
        sys.exit("kube: stopped; what Go has compiled so far is in its own cache, so that the next time is shorter")

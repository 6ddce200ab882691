"""Builds lots of programs from their published modules, once: `make kube istio`, or `python -m tests.programs.build LOT…`.

They come into `${XDG_CACHE_HOME:-~/.cache}/istio-cni/<lot>/<version>/bin`. A stamp beside them, written last, says what they
were built from; while it agrees with go.mod and go.sum there is nothing to do. Where it does not, what was built from the very
same modules stays. With `$<LOT>_BIN_DIR` set, as `$KUBE_BIN_DIR`, nothing is built: what is there is looked at and used.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
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

from tests.programs.lots import LOTS
from tests.programs.program import SOURCE
from tests.support.interrupt import INTERRUPTIBLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.programs.program import Files, Lot, Program

STAMP = ".built"
SECONDS_BETWEEN_WORDS = 15
SLOWEST_STOP = 10.0  # seconds that the compiler is given to end after Ctrl-C


def is_built(lot: Lot) -> bool:
    """Whether the programs are there and, unless they were given, are what go.mod and go.sum say."""
    stamp = lot.folder / STAMP
    names = [each.name for each in lot.programs] + [each.name for each in lot.files]
    there = all((lot.folder / name).exists() for name in names)
    return there and (lot.given is not None or (stamp.is_file() and stamp.read_text() == _source(lot)))


def build(lot: Lot) -> None:
    """Build what is not built yet, with a word on how far it is; look at what was given.

    Raises:
        SystemExit: with what is missing or what failed.
    """
    if where := lot.given:
        _accept(lot.complaints(where, exactly=False), lot.variable)
        print(f"programs: {lot.title}: taken from {where}")
        return
    if not is_built(lot):
        lot.folder.mkdir(parents=True, exist_ok=True)
        with _alone(lot):
            if not is_built(lot):  # by the one that we waited for
                _build_missing(lot)
    print(f"programs: {lot.title}: in {lot.folder}")


def _build_missing(lot: Lot) -> None:
    go = _go(lot.go_release)
    folder = lot.folder
    missing = [program for program in lot.programs if not _stays(go, program, folder)]
    if missing:
        print(f"programs: building {', '.join(program.name for program in missing)} into {folder}")
        print(f"programs: {lot.title}: about {lot.duration} on two cores if Go's own cache is empty", flush=True)
    for program in missing:
        with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as unfinished:
            _compile(go, program, Path(unfinished))
            (folder / STAMP).unlink(missing_ok=True)
            (Path(unfinished) / program.name).rename(folder / program.name)
    for files in lot.files:
        _copy(go, files, folder)
    _accept(lot.complaints(folder, exactly=True), "the build")
    (folder / STAMP).write_text(_source(lot))


def _copy(go: Path, files: Files, into: Path) -> None:
    """Copy files out of Go's own cache, which need not be there the next time, and where nothing may be written."""
    command = [str(go), "list", "-m", "-f", "{{.Dir}}", files.path]
    where = subprocess.run(
        command, cwd=files.module, env=_environment(), capture_output=True, text=True, check=True
    ).stdout.strip()
    with tempfile.TemporaryDirectory(prefix=".new-", dir=into) as unfinished:
        copied = Path(unfinished) / files.name
        subprocess.run(["/bin/cp", "-r", "--no-preserve=mode", Path(where) / files.inside, copied], check=True)
        if (into / files.name).is_dir():
            shutil.rmtree(into / files.name)
        copied.rename(into / files.name)


def _accept(wrong: list[str], origin: str) -> None:
    if wrong:
        raise SystemExit("\n".join(f"programs: {origin}: {each}" for each in wrong))


def _source(lot: Lot) -> str:
    digest = hashlib.sha256()
    for module in sorted({program.module for program in lot.programs}):
        for name in ("go.mod", "go.sum"):
            digest.update((module / name).read_bytes())
    for program in lot.programs:
        digest.update(f"{program.name} {program.options}\n".encode())
    return digest.hexdigest()


def _stays(go: Path, program: Program, folder: Path) -> bool:
    """Whether what is there says our version and was made of the modules that go.mod names now.

    Go writes into each program which modules it is made of. What else go.mod may have gained is for other programs.
    """
    if program.complaint(folder, exactly=True):
        return False
    names = {(each["Path"], each["Version"]) for each in _chosen(go, program)}
    listed = subprocess.run(
        [go, "version", "-m", folder / program.name], env=_environment(), capture_output=True, text=True, check=True
    ).stdout
    made_of = re.findall(r"^\t(?:mod|dep|=>)\t(\S+)\t(\S+)\th1:", listed, re.MULTILINE)
    return bool(made_of) and names.issuperset(made_of)


def _chosen(go: Path, program: Program) -> list[dict[str, str]]:
    """List the modules of a go.mod at the versions that count: what stands in for another comes in its place."""
    text = subprocess.run(
        [go, "mod", "edit", "-json", program.module / "go.mod"],
        env=_environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    stated = json.loads(text)
    instead = {each["Old"]["Path"]: each["New"] for each in stated.get("Replace") or []}
    return [instead.get(each["Path"], each) for each in stated["Require"]]


@contextmanager
def _alone(lot: Lot) -> Iterator[None]:
    """Hold a lock, which the kernel lets go of when we end, however we end."""
    with (lot.folder.parent / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("programs: another build is running; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _go(release: tuple[int, ...]) -> Path:
    """Find a Go of at least this release; where there is none, install one into this virtual environment."""
    at_least = ".".join(map(str, release))
    packaged = Path(sysconfig.get_path("purelib")) / "go" / "bin" / "go"
    on_path = shutil.which("go")
    for go in (Path(on_path) if on_path else None, Path("/usr/local/go/bin/go"), packaged):
        if go and _is_recent(go, release):
            return go
    if sys.prefix == sys.base_prefix:
        raise SystemExit(
            f"programs: no Go {at_least} or newer on PATH or in /usr/local/go; install one, or run `make`, which has a "
            "virtual environment to install it into"
        )
    print(f"programs: no Go {at_least} or newer here; installing one into {sys.prefix}")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    subprocess.run([*pip, "-r", str(SOURCE / "go-requirements.txt")], check=True)
    if not _is_recent(packaged, release):
        raise SystemExit(f"programs: {packaged} does not run after its installation, expected Go {at_least} or newer")
    return packaged


def _is_recent(go: Path, release: tuple[int, ...]) -> bool:
    try:
        answer = subprocess.run(
            [go, "env", "GOVERSION"], env=_environment(), capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return False
    found = re.match(r"go(\d+)\.(\d+)\.?(\d*)", answer.stdout)
    return found is not None and tuple(int(each or 0) for each in found.groups()) >= release


def _environment(program: Program | None = None) -> dict[str, str]:
    uses_c = program is not None and program.uses_c
    return os.environ | {"CGO_ENABLED": f"{uses_c:d}", "GOTOOLCHAIN": "local", "GOWORK": "off"}


def _compile(go: Path, program: Program, into: Path) -> None:
    name = program.name
    print(f"programs: {name}: getting its modules", flush=True)
    total = sum(1 for _ in _lines(go, program, "list", "-deps", program.package))
    started, said = time.monotonic(), 0.0
    kind = ("test", "-c", "-vet=off") if program.is_test else ("build", "-v")  # no word on each package of tests
    build = (*kind, *program.options, "-o", str(into / name), program.package)
    for compiled, _ in enumerate(_lines(go, program, *build), 1):  # a line a package, those in Go's own cache left out
        elapsed = time.monotonic() - started
        if elapsed - said >= SECONDS_BETWEEN_WORDS:
            print(f"programs: {name}: {compiled} of at most {total} packages after {elapsed:.0f} s", flush=True)
            said = elapsed
    print(f"programs: {name}: built in {time.monotonic() - started:.0f} s", flush=True)


def _lines(go: Path, program: Program, *arguments: str) -> Iterator[str]:
    """Run Go in the folder of a program's go.mod, and yield what it says as it says it.

    Raises:
        SystemExit: with the last that it said, if it fails.
    """
    command = [*INTERRUPTIBLE, str(go), *arguments]
    process = subprocess.Popen(
        command,
        cwd=program.module,
        env=_environment(program),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    last = deque[str](maxlen=40)
    try:
        assert process.stdout
        for line in process.stdout:
            last.append(line)
            if not line.startswith("go: "):
                yield line
        if process.wait() != 0:
            raise SystemExit(f"programs: `go {arguments[0]} {arguments[-1]}` failed, and said last:\n{''.join(last)}")
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
        for name in sys.argv[1:]:
            build(LOTS[name])
    except KeyboardInterrupt:
        sys.exit("programs: stopped; what Go has compiled so far is in its own cache, so that the next time is shorter")

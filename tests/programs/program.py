"""What a program built from a published Go module is: what from, what it calls itself, and whether what is there is right."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

SOURCE = Path(__file__).parent
SLOWEST_ANSWER = 60.0  # seconds, for a program that is read from a disk for the first time


def stated(module: Path, pattern: str) -> str:
    """Return what the first group of a pattern finds in a module's go.mod.

    Raises:
        SystemExit: if it finds nothing.
    """
    found = re.search(pattern, (module / "go.mod").read_text(), re.MULTILINE)
    if not found:
        raise SystemExit(f"programs: {module / 'go.mod'} has no line like {pattern!r}, expected one")
    return found[1]


@dataclass(frozen=True)
class Program:
    """One program: a command of a published Go module.

    Attributes:
        name: of its file.
        module: the folder of the go.mod that says which modules it is made of.
        package: the import path of its `main`.
        version: what it calls itself.
        stamped: variables that the linker sets; built from modules alone, most programs do not know their version.
        asked: the arguments that make it say its version.
        tags: Go's build tags.
        uses_c: whether parts of it are in C.
        is_test: whether its package has tests and no `main`: `go test -c` makes a program of them.
    """

    name: str
    module: Path
    package: str
    version: str
    stamped: dict[str, str] = field(default_factory=dict)
    asked: tuple[str, ...] = ("--version",)
    tags: tuple[str, ...] = ()
    uses_c: bool = False
    is_test: bool = False

    @property
    def options(self) -> list[str]:
        """What to tell `go build`."""
        linker = " ".join(["-s -w", *(f"-X {variable}={value}" for variable, value in self.stamped.items())])
        return ["-trimpath", "-ldflags", linker, *(["-tags", ",".join(self.tags)] if self.tags else [])]

    @property
    def go_release(self) -> tuple[int, ...]:
        """The release of Go that its go.mod asks for, at least."""
        return tuple(map(int, stated(self.module, r"^go (\d+\.\d+\.\d+)$").split(".")))

    def complaint(self, folder: Path, *, exactly: bool) -> str | None:
        """Run it, and say what is wrong with what is in a folder under its name, if anything is.

        Args:
            folder: where its file should be.
            exactly: whether it has to be of our version, or only of the same minor release.
        """
        command = [str(folder / self.name), *self.asked]
        expected = self.version if exactly else self.version.rpartition(".")[0]
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=SLOWEST_ANSWER, check=False)
        except OSError as error:
            return f"{folder / self.name} cannot be run: {error.strerror}"
        found = re.search(r"v?\d+\.\d+\.\d+[^\s,]*", ended.stdout or ended.stderr)  # CNI plugins say it on stderr
        if ended.returncode != 0 or not found:
            said = (ended.stderr or ended.stdout).strip()[-500:]
            return f"{folder / self.name} {' '.join(self.asked)}: status {ended.returncode}, saw {said!r}"
        same = found[0] == expected if exactly else found[0].startswith(f"{expected}.")
        return None if same else f"{folder / self.name} is {found[0]}, expected {expected}{'' if exactly else '.*'}"


@dataclass(frozen=True)
class Files:
    """A file or folder of a published Go module, as it is.

    Attributes:
        name: that it gets beside the programs.
        module: the folder of the go.mod that says which version.
        path: of the module.
        inside: where it is in the module.
    """

    name: str
    module: Path
    path: str
    inside: str


@dataclass(frozen=True)
class Lot:
    """Programs that are built together, into one folder.

    Attributes:
        name: of its folder in the cache; in capitals, with `_BIN_DIR` behind it, the variable that names another folder.
        version: of what matters most among them.
        title: what they are, with their versions.
        programs: each.
        duration: how long it takes on two cores if Go's own cache is empty.
        files: what else is taken from the modules.
    """

    name: str
    version: str
    title: str
    programs: tuple[Program, ...]
    duration: str
    files: tuple[Files, ...] = ()

    @property
    def go_release(self) -> tuple[int, ...]:
        """The release of Go that all of them can be built with, at least."""
        return max(program.go_release for program in self.programs)

    @property
    def variable(self) -> str:
        """The environment variable that names a folder to take them from."""
        return f"{self.name.upper()}_BIN_DIR"

    @property
    def given(self) -> Path | None:
        """The folder that the environment names, if it names one: then nothing is built.

        Raises:
            SystemExit: if it is no absolute path.
        """
        named = os.environ.get(self.variable, "")
        if named and not named.startswith("/"):
            raise SystemExit(f"programs: saw {self.variable}={named}, expected the absolute path of a folder")
        return Path(named) if named else None

    @property
    def folder(self) -> Path:
        """Where the programs are, or will be: as the environment says, or this version's folder in the user's cache."""
        cache = os.environ.get("XDG_CACHE_HOME", "")
        base = Path(cache) if cache.startswith("/") else Path.home() / ".cache"
        return self.given or base / "istio-cni" / self.name / self.version / "bin"

    def complaints(self, where: Path, *, exactly: bool) -> list[str]:
        """Say what is wrong with those in a folder; arguments are those of `Program.complaint`."""
        return [said for program in self.programs if (said := program.complaint(where, exactly=exactly))]

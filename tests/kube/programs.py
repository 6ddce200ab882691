"""Kubernetes' own programs, helm and etcd: which, from what, where they are, and whether what is there is right."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parent
SLOWEST_ANSWER = 60.0  # seconds, for a program that is read from a disk for the first time


def _stated(module: Path, pattern: str) -> str:
    found = re.search(pattern, (module / "go.mod").read_text(), re.MULTILINE)
    if not found:
        raise SystemExit(f"kube: {module / 'go.mod'} has no line like {pattern!r}, expected one")
    return found[1]


VERSION = _stated(SOURCE, r"^\s*k8s\.io/kubernetes (v\S+)")
HELM_VERSION = _stated(SOURCE / "helm", r"^\s*helm\.sh/helm/v3 (v\S+)")
ETCD_VERSION = _stated(SOURCE / "etcd", r"^require go\.etcd\.io/etcd/server/v3 (v\S+)")


@dataclass(frozen=True)
class Program:
    """One program: a command of a published Go module.

    Attributes:
        name: of its file.
        module: the folder of the go.mod that says which modules it is made of.
        package: the import path of its `main`.
        stamped: variables that the linker sets; built from modules alone, programs do not know their version.
        version: what it calls itself.
        asked: the arguments that make it say so.
    """

    name: str
    module: Path
    package: str
    stamped: dict[str, str]
    version: str
    asked: tuple[str, ...] = ("--version",)

    @property
    def linker_flags(self) -> str:
        """What to tell the linker."""
        return " ".join(["-s -w", *(f"-X {variable}={value}" for variable, value in self.stamped.items())])

    @property
    def go_release(self) -> tuple[int, int]:
        """The release of Go that its go.mod asks for, at least."""
        major, minor = _stated(self.module, r"^go (\d+\.\d+)").split(".")
        return int(major), int(minor)

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
        found = re.search(r"v?\d+\.\d+\.\d+\S*", ended.stdout)
        if ended.returncode != 0 or not found:
            said = (ended.stderr or ended.stdout).strip()[-500:]
            return f"{folder / self.name} {' '.join(self.asked)}: status {ended.returncode}, saw {said!r}"
        same = found[0] == expected if exactly else found[0].startswith(f"{expected}.")
        return None if same else f"{folder / self.name} is {found[0]}, expected {expected}{'' if exactly else '.*'}"


def _release(version: str) -> tuple[str, str]:
    major, minor = version.removeprefix("v").split(".")[:2]
    return major, minor


def _of_kubernetes(name: str) -> Program:
    major, minor = _release(VERSION)
    facts = {"gitVersion": VERSION, "gitMajor": major, "gitMinor": minor}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return Program(
        name,
        SOURCE,
        f"k8s.io/kubernetes/cmd/{name}",
        {f"{package}.{fact}": value for package in packages for fact, value in facts.items()},
        VERSION,
        ("version", "--client") if name == "kubectl" else ("--version",),
    )


def _helm() -> Program:
    # As its own Makefile has it: the Kubernetes that templates are told of where no server is asked is that of its client.
    _, minor = _release(_stated(SOURCE / "helm", r"^\s*k8s\.io/client-go (v\S+)"))
    kubernetes = {"k8sVersionMajor": "1", "k8sVersionMinor": minor}
    packages = ("helm.sh/helm/v3/pkg/lint/rules", "helm.sh/helm/v3/pkg/chartutil")
    stamped = {f"{package}.{fact}": value for package in packages for fact, value in kubernetes.items()}
    stamped["helm.sh/helm/v3/internal/version.version"] = HELM_VERSION
    return Program("helm", SOURCE / "helm", "helm.sh/helm/v3/cmd/helm", stamped, HELM_VERSION, ("version", "--short"))


KUBERNETES = (
    "kube-apiserver",
    "kubectl",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
)


@dataclass(frozen=True)
class Lot:
    """Programs that are built together.

    Attributes:
        title: what they are, with their versions.
        programs: each.
        stamp: the name of the file that says what they were built from.
        duration: how long it takes on two cores if Go's own cache is empty.
    """

    title: str
    programs: tuple[Program, ...]
    stamp: str
    duration: str

    @property
    def go_release(self) -> tuple[int, int]:
        """The release of Go that all of them can be built with, at least."""
        return max(program.go_release for program in self.programs)

    def complaints(self, where: Path, *, exactly: bool) -> list[str]:
        """Say what is wrong with those in a folder; arguments are those of `Program.complaint`."""
        return [said for program in self.programs if (said := program.complaint(where, exactly=exactly))]


KUBE = Lot(
    f"Kubernetes {VERSION} and helm {HELM_VERSION}",
    (*map(_of_kubernetes, KUBERNETES), _helm()),
    ".built-from",
    "a quarter of an hour",
)
ETCD = Lot(
    f"etcd {ETCD_VERSION}",
    (Program("etcd", SOURCE / "etcd", "go.etcd.io/etcd/server/v3", {}, ETCD_VERSION.removeprefix("v")),),
    ".etcd-built-from",
    "two minutes",
)


def given() -> Path | None:
    """Return the folder that `$KUBE_BIN_DIR` names, if it is set: then nothing is built.

    Raises:
        SystemExit: if it is no absolute path.
    """
    named = os.environ.get("KUBE_BIN_DIR", "")
    if named and not named.startswith("/"):
        raise SystemExit(f"kube: saw KUBE_BIN_DIR={named}, expected the absolute path of a folder")
    return Path(named) if named else None


def folder() -> Path:
    """Return where the programs are, or will be: `$KUBE_BIN_DIR`, or this version's folder in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(cache) if cache.startswith("/") else Path.home() / ".cache"
    return given() or base / "istio-cni" / "kube" / VERSION / "bin"

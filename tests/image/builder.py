"""buildah, podman or docker (25 or newer, which writes OCI archives), whichever is there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

SLOWEST_ANSWER = 30.0  # seconds, to see whether it works at all
SLOWEST_PULL = 300.0
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")

_STEP = re.compile(r"^(?:\[\d/\d\] STEP \d+/\d+: |#\d+ \[\w+ +\d+/\d+\] )(.*)")


@dataclass(frozen=True)
class Builder:
    """A program that builds images.

    Attributes:
        name: what it is called.
        program: its path.
    """

    name: str
    program: str

    @property
    def works(self) -> bool:
        """Whether it can build: docker alone may be there without its daemon."""
        try:
            return self._try("info", within=SLOWEST_ANSWER).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def has(self, name: str) -> bool:
        """Whether an image is here."""
        kind = ["image"] if self.name == "docker" else []
        return self._try(*kind, "inspect", name, within=SLOWEST_ANSWER).returncode == 0

    def pull(self, reference: str) -> str:
        """Get an image from its registry, unless it is here.

        Returns:
            Why it could not, in one line; empty if it is here now.
        """
        try:
            ended = self._try("pull", reference, within=SLOWEST_PULL)
        except subprocess.TimeoutExpired:
            return f"no answer for {SLOWEST_PULL:.0f} s"
        said = ended.stderr.strip().splitlines() or [f"status {ended.returncode}"]
        return said[-1] if ended.returncode else ""

    def build(self, name: str, context: Path, arguments: Mapping[str, str]) -> None:
        """Build an image from a folder with a Dockerfile, with a word on each step.

        Args:
            name: of the image.
            context: the folder.
            arguments: build arguments.

        Raises:
            SystemExit: with the last that was said, if it fails.
        """
        options = ["--layers"] if self.name != "docker" else []
        if self.name == "docker":  # the others hand them over by themselves, and none of them stays in the image
            arguments = {each: os.environ[each] for each in PROXIES if each in os.environ} | dict(arguments)
        for key, value in arguments.items():
            options += ["--build-arg", f"{key}={value}"]
        self._say("build", *options, f"--file={context / 'Dockerfile'}", "--tag", name, str(context))

    def save(self, name: str, archive: Path) -> None:
        """Write an image into an OCI archive, with its name.

        Raises:
            SystemExit: with the last that was said, if it fails.
        """
        archive.unlink(missing_ok=True)
        commands = {
            "buildah": ("push", name, f"oci-archive:{archive}:{name}"),
            "podman": ("save", "--format=oci-archive", f"--output={archive}", name),
            "docker": ("save", f"--output={archive}", name),
        }
        self._say(*commands[self.name])

    def _try(self, *arguments: str, within: float) -> subprocess.CompletedProcess[str]:
        command = [self.program, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=within, env=_environment(), check=False)

    def _say(self, *arguments: str) -> None:
        started, last = time.monotonic(), deque[str](maxlen=60)
        for line in self._lines(arguments, last):
            if step := _STEP.match(line):
                print(f"image: {time.monotonic() - started:4.0f} s  {step[1][:100]}", flush=True)

    def _lines(self, arguments: Sequence[str], last: deque[str]) -> Iterator[str]:
        command = [self.program, *arguments]
        with subprocess.Popen(
            command, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as process:
            assert process.stdout
            for line in process.stdout:
                last.append(line)
                yield line
        if process.returncode != 0:
            raise SystemExit(f"image: `{self.name} {arguments[0]}` failed, and said last:\n{''.join(last)}")


def _environment() -> dict[str, str]:
    """Have buildah and podman run steps in a chroot: no more than that is needed, and it works inside of containers too.

    docker is to say what it does on lines, and to write nothing into the archive but the image.
    """
    of_docker = {"DOCKER_BUILDKIT": "1", "BUILDKIT_PROGRESS": "plain", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
    return {"BUILDAH_ISOLATION": "chroot"} | of_docker | os.environ


def found() -> Builder:
    """Choose one that works.

    Raises:
        SystemExit: if there is none.
    """
    for name in ("buildah", "podman", "docker"):
        program = shutil.which(name)
        if program and (builder := Builder(name, program)).works:
            return builder
    raise SystemExit("image: saw no buildah, podman or docker that works, expected one; `make setup` installs buildah")

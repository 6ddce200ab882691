"""Calls the plugin as a container runtime does: variables, stdin, exit status, stdout."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
FROZEN = ROOT / "build" / "istio-cni"
UNACCELERATED = ROOT / "build" / "istio-cni-python"  # the same file, in which Python does all


@dataclass(frozen=True)
class Answer:
    """What a call gave."""

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def json(self) -> Any:
        """Stdout, parsed."""
        return json.loads(self.stdout)


@dataclass(frozen=True)
class Plugin:
    """One way to run the plugin, and the folder that is its root."""

    name: str
    command: tuple[str, ...]
    root: Path
    chrooted: bool

    def seen(self, path: Path) -> str:
        """Translate a path to what the plugin sees."""
        return "/" + str(path.relative_to(self.root)) if self.chrooted else str(path)

    async def __call__(self, environment: Mapping[str, str], stdin: bytes | Mapping[str, Any] = b"") -> Answer:
        """Run it once, with these variables and no others."""
        data = stdin if isinstance(stdin, bytes) else json.dumps(stdin, sort_keys=True, separators=(",", ":")).encode()
        process = await asyncio.create_subprocess_exec(
            *self.command,
            env=dict(environment),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        stdout, stderr = await process.communicate(data)
        assert process.returncode is not None
        return Answer(process.returncode, stdout, stderr)


def reference(folder: Path) -> Plugin:
    """`python -m plugin`."""
    return Plugin("reference", (sys.executable, "-m", "plugin"), folder, chrooted=False)


def frozen(folder: Path) -> Plugin:
    """The static file, alone in an otherwise empty root: no libc, no /tmp, no Python."""
    return _alone(folder, "frozen", FROZEN)


def unaccelerated(folder: Path) -> Plugin:
    """The static file without its accelerator, alone as well."""
    return _alone(folder, "unaccelerated", UNACCELERATED)


def _alone(folder: Path, name: str, file: Path) -> Plugin:
    shutil.copy2(file, folder / "istio-cni")
    return Plugin(name, ("/usr/sbin/chroot", str(folder), "/istio-cni"), folder, chrooted=True)

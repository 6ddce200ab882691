"""A node on a real disk: the directories that the agent manages, and a primary CNI's configuration in them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from installer.agent.node import Node
from installer.agent.reconciler import Reconciler
from installer.config.desired import DesiredState
from installer.config.settings import Settings, build_entry, parse_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from installer.fleet.state import NodeState

PRIMARY = (
    b'{"cniVersion": "0.4.0",\n "name": "k8s", "plugins": [\n  {"type": "bridge", "mtu": 1400}, {"type":"portmap"} ]}'
)
SINGLE = b'{ "name": "k8s", "cniVersion": "0.3.1",\t"type": "bridge" }\n'
VERSIONS = (
    b"""echo '{"cniVersion": "1.0.0", "supportedVersions": ["1.0.0"]}'; exit"""  # in a shell, as a plugin answers
)
RANDOM = hashlib.shake_256(b"the plugin file").digest((1 << 20) + 4711)  # more than is written at once
PLUGIN_BYTES = b"#!/bin/sh\n" + VERSIONS + b"\n" + RANDOM
SLOWEST = 60.0  # seconds that anything here may take on a busy machine


@dataclass
class NodeOnDisk:
    """The directories of one node; `settings` are those of its agent."""

    root: Path
    settings: Settings

    @classmethod
    def make(cls, root: Path, **texts: str) -> NodeOnDisk:
        """Make cniBinDir, cniConfDir and the image's plugin file, as a node has them before."""
        for name in ("bin", "conf", "run"):
            (root / name).mkdir(parents=True, exist_ok=True)
        (root / "image-plugin").write_bytes(PLUGIN_BYTES)
        return cls.open(root, **texts)

    @classmethod
    def open(cls, root: Path, **texts: str) -> NodeOnDisk:
        """Take the directories as they are."""
        paths = {
            "cni_bin_dir": str(root / "bin"),
            "cni_conf_dir": str(root / "conf"),
            "plugin_file": str(root / "image-plugin"),
            "agent_socket": str(root / "run" / "agent.sock"),
        }
        return cls(root, parse_settings(paths | texts))

    @property
    def bin(self) -> Path:
        """The plugin's directory."""
        return self.settings.cni_bin_dir

    @property
    def conf(self) -> Path:
        """The configurations' directory."""
        return self.settings.cni_conf_dir

    @property
    def plugin(self) -> Path:
        """The plugin file in place."""
        return self.bin / "istio-cni"

    def files(self) -> dict[str, bytes]:
        """What cniConfDir holds."""
        return {path.name: path.read_bytes() for path in sorted(self.conf.iterdir()) if path.is_file()}

    def has_entry(self, name: str) -> bool:
        """Tell whether a list's last plugin, and no other, is the agent's."""
        plugins = json.loads((self.conf / name).read_bytes())["plugins"]
        return [p for p in plugins if p["type"] == "istio-cni"] == [plugins[-1]] == [build_entry(self.settings)]

    def install(self, *, serving: bool = True) -> Node:
        """Run passes until there is nothing left to do."""
        node = Node(lambda: DesiredState(self.settings), lambda: serving)
        settle(node)
        return node


def settle(node: Node) -> NodeState:
    """Run passes until one changes nothing."""
    for _ in range(5):
        if not node.reconcile_once(full=True):
            return node.state
    raise AssertionError("the fifth look still had something to do: it does not come to rest")


def replace_file(path: Path, content: bytes) -> None:
    """Write as a careful primary CNI does: beside it, then rename."""
    beside = path.with_name(path.name + ".tmp")
    beside.write_bytes(content)
    beside.replace(path)


class Running:
    """A reconciler running in this process, and the states that it reported."""

    def __init__(self) -> None:
        self.states: list[NodeState] = []
        self._changed = asyncio.Condition()
        self._loop = asyncio.get_running_loop()
        self.reconciler: Any = None

    def tell(self, state: NodeState) -> None:
        """Take a state from the reconciler's thread."""
        asyncio.run_coroutine_threadsafe(self._take(state), self._loop)

    async def _take(self, state: NodeState) -> None:
        async with self._changed:
            self.states.append(state)
            self._changed.notify_all()

    async def until(self, condition: Callable[[NodeState], bool]) -> NodeState:
        """Wait until the latest state is so."""
        try:
            async with asyncio.timeout(SLOWEST), self._changed:
                await self._changed.wait_for(lambda: bool(self.states) and condition(self.states[-1]))
        except TimeoutError:
            raise AssertionError(f"not within {SLOWEST} s; the states were {self.states}") from None
        return self.states[-1]


@contextlib.asynccontextmanager
async def running(
    on: Settings | Callable[[], DesiredState], serving: Callable[[], bool] = lambda: True
) -> AsyncIterator[Running]:
    """Run a reconciler for the duration of a block."""
    run = Running()
    orders = on if callable(on) else lambda: DesiredState(on)
    run.reconciler = Reconciler(orders, serving, run.tell)
    stop = asyncio.Event()
    task = asyncio.create_task(run.reconciler.run(stop))
    try:
        yield run
    finally:
        stop.set()
        await task


def names(folder: Path) -> list[str]:
    """List a directory, sorted."""
    return sorted(path.name for path in folder.iterdir())


def open_descriptors() -> int:
    """Count this process's open files."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - iterdir holds one more open

"""A container as a DaemonSet describes it: its environment, its mounts, its capabilities, a network of its own.

`python -m tests.support.contained SPEC` runs the command of a JSON file in a mount namespace that ends with it. The root is
this machine's file system, without what is below /host, /opt and /run.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Self

from plugin import netns
from tests.support.agent import AgentProcess
from tests.support.call import FROZEN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tests.support.netns import Netns

ACCOUNT = "run/secrets/kubernetes.io/serviceaccount"
_OWN = {"host", "opt", "run"}
_PROGRAMS = Path(sys.executable).parent  # where `install-cni` is


class ContainedAgent(AgentProcess):
    """An agent in such a container."""

    def __init__(
        self,
        folder: Path,
        network: Netns,
        *,
        command: Sequence[str],
        environment: Mapping[str, str],
        mounts: Iterable[tuple[str, Path, bool]],
        capabilities: Iterable[str],
        account: Mapping[str, str],
    ) -> None:
        """Prepare.

        Args:
            folder: for the root, the node's directories and the log.
            network: the container's.
            command: with its arguments.
            environment: all of it but PATH.
            mounts: path in the container, path here, and whether it is read-only.
            capabilities: as in a pod, without CAP_.
            account: the files of the service account.
        """
        super().__init__(folder, conf_dir=folder / "conf", bin_dir=folder / "bin", options={})
        self.root = folder / "root"
        self._network = network
        self._spec = folder / "spec.json"
        spec = {
            "root": str(self.root),
            "command": [*command],
            "environment": {"PATH": f"{_PROGRAMS}:/usr/bin:/bin", **environment},
            "mounts": [(path, str(source), read_only) for path, source, read_only in mounts],
            "capabilities": [each.lower() for each in capabilities],
            "account": dict(account),
        }
        self._spec.write_text(json.dumps(spec))

    def start(self) -> Self:
        """Start it without waiting for anything."""
        own = ["/usr/bin/unshare", "--mount", "--propagation", "private"]
        command = [*self._network.entered, *own, sys.executable, "-m", __name__, str(self._spec)]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        return self

    @property
    def inside(self) -> list[str]:
        """How a command begins that sees the container's files, as the node sees its own."""
        assert self.process is not None
        return ["/usr/bin/nsenter", f"--target={self.process.pid}", "--mount", "--root", "--wdns=/"]

    def ask(self, url: str) -> tuple[int, str]:
        """Ask a URL from the container's network, and return status and text; 0 and why, if there is no answer."""
        code = (
            "import sys, urllib.request, urllib.error\n"
            "try:\n    a = urllib.request.urlopen(sys.argv[1], timeout=30)\n"
            "except urllib.error.HTTPError as e:\n    a = e\n"
            "except OSError as e:\n    print(0, e, end=''); sys.exit()\n"
            "print(a.status, a.read().decode(), end='')"
        )
        command = [*self._network.entered, sys.executable, "-c", code, url]
        status, _, text = subprocess.run(command, capture_output=True, text=True, check=True).stdout.partition(" ")
        return int(status), text


@contextmanager
def forwarded(network: Netns, port: int) -> Iterator[None]:
    """Have a port of loopback in a network namespace lead to the same port of loopback here."""

    def listen() -> socket.socket:
        fd = netns.NetnsFd(os.open(network.path, os.O_RDONLY | os.O_CLOEXEC))
        with netns.entered(fd):
            made = socket.create_server(("127.0.0.1", port))
        os.close(fd)
        return made

    with ThreadPoolExecutor(1) as pool:
        listening = pool.submit(listen).result()
    loop = asyncio.new_event_loop()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_copy(reader, there[1]), _copy(there[0], writer))

    async def serve() -> None:
        async with await asyncio.start_server(answer, sock=listening):
            await ended.wait()

    ended = asyncio.Event()
    thread = Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        answering = asyncio.all_tasks(loop)
        for task in answering:
            task.cancel()
        loop.run_until_complete(asyncio.wait(answering) if answering else asyncio.sleep(0))
        loop.run_until_complete(asyncio.sleep(0))  # the transports that they closed are closed in the next turn
        loop.close()
        listening.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
    finally:
        writer.close()


def _run(spec: dict[str, Any]) -> None:
    root = Path(spec["root"])
    for each in Path("/").iterdir():
        if each.is_symlink():
            if not (root / each.name).is_symlink():  # it may have been started before
                (root / each.name).symlink_to(each.readlink())
        elif each.is_dir() and each.name not in _OWN:
            _mount(each, root / each.name, "--rbind")
    for name, text in spec["account"].items():
        (root / ACCOUNT / name).write_text(text)
    shutil.copy2(FROZEN, root / "opt/istio-cni/istio-cni")
    for path, source, read_only in spec["mounts"]:
        target = root / path.removeprefix("/").replace("var/run", "run", 1)
        _mount(Path(source), target, "--rbind")
        if read_only:
            subprocess.run(["/bin/mount", "-o", "remount,bind,ro", str(target)], check=True)
    os.chroot(root)
    os.chdir("/")
    allowed = ",".join(["-all", *(f"+{each}" for each in spec["capabilities"])])
    limited = ["/usr/bin/setpriv", f"--bounding-set={allowed}", "--inh-caps=-all", "--pdeathsig=KILL"]
    os.execve(limited[0], [*limited, *spec["command"]], spec["environment"])  # noqa: S606 - no shell is needed


def _mount(source: Path, target: Path, how: str) -> None:
    target.mkdir(parents=True, exist_ok=True)
    subprocess.run(["/bin/mount", how, str(source), str(target)], check=True)


def lay_out(root: Path) -> None:
    """Make the directories of a root that are its own."""
    for each in (ACCOUNT, "opt/istio-cni"):
        (root / each).mkdir(parents=True)


if __name__ == "__main__":
    _run(json.loads(Path(sys.argv[1]).read_text()))

"""The node agent as a process of its own, as a DaemonSet's pod would run it."""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.support.call import FROZEN, Answer, Plugin

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from tests.support.netns import Netns

SLOWEST_START = 120.0  # seconds
SLOWEST_STOP = 40.0


class AgentProcess:
    """`install-cni run`; its output goes to `log`, whatever its exit status."""

    def __init__(
        self,
        folder: Path,
        *,
        conf_dir: Path,
        bin_dir: Path,
        options: Mapping[str, str | Path],
        prefix: Sequence[str] = (),
    ) -> None:
        """Prepare.

        Args:
            folder: for the socket and the log.
            conf_dir: cniConfDir.
            bin_dir: cniBinDir.
            options: further flags, without their dashes.
            prefix: a command to run it with, such as one that enters a namespace.
        """
        self.conf_dir, self.bin_dir = conf_dir, bin_dir
        self.socket = folder / "run" / "agent.sock"
        self.log = folder / "agent.log"
        self.port = _free_port()
        given = {
            "node-name": "node1",
            "cni-conf-dir": conf_dir,
            "cni-bin-dir": bin_dir,
            "plugin-file": FROZEN,
            "agent-socket": self.socket,
            "health-address": f"127.0.0.1:{self.port}",
            "log-level": "info",
        } | dict(options)
        self.options = [text for name, value in given.items() for text in (f"--{name}", str(value))]
        self.prefix = [*prefix]
        self.process: subprocess.Popen[str] | None = None

    def set(self, option: str, value: str | Path) -> None:
        """Change a flag, without its dashes, for the next start."""
        self.options += [f"--{option}", str(value)]

    def start(self) -> Self:
        """Start it without waiting for anything."""
        command = [*self.prefix, sys.executable, "-m", "installer", "run", *self.options]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        return self

    def ready(self, within: float = SLOWEST_START) -> str:
        """Wait for the line that says it is ready.

        Raises:
            AssertionError: with its log, if it does not come.
        """
        assert self.process is not None
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if selector.select(within) and (line := self.process.stdout.readline()):
                return line.strip()
        raise AssertionError(f"the agent was not ready within {within} s; its log:\n{self.log.read_text()}")

    def get(self, path: str) -> tuple[int, str]:
        """Request /healthz, /readyz or /metrics."""
        return ask(self.port, path)

    def rss(self) -> int:
        """Its resident memory in bytes."""
        assert self.process is not None
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the agent has ended")

    def open_files(self) -> int:
        """How many file descriptors it has open."""
        assert self.process is not None
        return len([*Path(f"/proc/{self.process.pid}/fd").iterdir()])

    def cpu(self) -> float:
        """The processor seconds it has used."""
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    async def add(
        self,
        netns: Netns,
        namespace: str,
        name: str,
        uid: str = "",
        annotations: Mapping[str, str] | None = None,
        *,
        addresses: Sequence[str] = ("10.1.2.3/24",),
    ) -> Answer:
        """Call the installed plugin for a pod as libcni does, with the installed conflist's entry.

        Args:
            netns: the pod's.
            namespace: the pod's.
            name: the pod's.
            uid: the pod's; empty for a runtime that says none.
            annotations: those that the runtime hands over; None for one that does not.
            addresses: the pod's, with their prefix lengths.
        """
        conflist = next(path for path in self.conf_dir.iterdir() if path.suffix == ".conflist")
        entry = json.loads(conflist.read_bytes())["plugins"][-1]
        del entry["capabilities"]
        plugin = Plugin("installed", (str(self.bin_dir / "istio-cni"),), self.bin_dir, chrooted=False)
        environment = {
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": "0123456789abcdef",
            "CNI_NETNS": str(netns.path),
            "CNI_IFNAME": "eth0",
            "CNI_ARGS": f"K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_UID={uid}",
        }
        prev = {"cniVersion": "1.0.0", "ips": [{"address": each} for each in addresses]}
        if annotations is not None:
            entry["runtimeConfig"] = {"io.kubernetes.cri.pod-annotations": dict(annotations) or None}
        return await plugin(environment, entry | {"cniVersion": "1.0.0", "name": "k8s", "prevResult": prev})

    def stop(self, number: int = signal.SIGTERM, within: float = SLOWEST_STOP) -> int:
        """End it, and return its exit status; what has not ended in time is killed, and that is an error."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            os.kill(self._pid(self.process), number)
        try:
            status = self.process.wait(within)
        except subprocess.TimeoutExpired:
            os.kill(self._pid(self.process), signal.SIGKILL)
            self.process.wait()
            raise
        finally:
            if self.process.stdout:
                self.process.stdout.close()
        self.process = None
        return status

    def _pid(self, process: subprocess.Popen[str]) -> int:
        """Return the agent's process id: nsenter forks to enter a PID namespace, and passes no signal on."""
        if "--pid" not in self.prefix:
            return process.pid
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return int(children[0]) if children else process.pid

    def uninstall(self) -> subprocess.CompletedProcess[str]:
        """Run `install-cni uninstall` with the same settings."""
        command = [*self.prefix, sys.executable, "-m", "installer", "uninstall", *self.options]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def ask(port: int, path: str) -> tuple[int, str]:
    """Ask an agent or a controller on loopback, and return status and text: 0 and why, if there is no answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

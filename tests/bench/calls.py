"""Timing whole processes: from the start of the executable to its end, as the container runtime waits for it."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.support.images import compiled

PAUSE = 0.03  # seconds between two calls: the kernel is still busy with the last one's netns for a while
SANDBOX = "0" * 64

# What the plugins before ours have answered: a dual-stack pod, and as much besides as makes about 2 KB.
PREV_RESULT = {
    "cniVersion": "1.0.0",
    "ips": [{"address": "10.244.0.7/24"}, {"address": "fd00:244::7/64"}],
    "dns": {"search": ["x" * 60] * 16},
}

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Call:
    """An executable with its variables and a file for its stdin."""

    executable: Path
    environment: Mapping[str, str]
    stdin: Path

    def start(self) -> int:
        """Start it and return its process id; what it writes is thrown away."""
        opened = (os.POSIX_SPAWN_OPEN, 0, os.fspath(self.stdin), os.O_RDONLY, 0)
        thrown = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_WRONLY, 0) for fd in (1, 2)]
        command = [os.fspath(self.executable)]
        return os.posix_spawn(command[0], command, dict(self.environment), file_actions=[opened, *thrown])

    def __call__(self) -> float:
        """Run it once: milliseconds.

        Raises:
            RuntimeError: if it fails, as then there is nothing to time.
        """
        started = time.perf_counter()
        self.succeeded(self.start())
        return (time.perf_counter() - started) * 1000

    def succeeded(self, process: int) -> None:
        """Wait for the end of a process that was started.

        Raises:
            RuntimeError: if it failed, with what the call says when it is made again.
        """
        _, status = os.waitpid(process, 0)
        if status:
            code = os.waitstatus_to_exitcode(status)
            with self.stdin.open("rb") as stdin:
                again = subprocess.run(
                    [self.executable], env=dict(self.environment), stdin=stdin, capture_output=True, check=False
                )
            said = (again.stdout + again.stderr).decode(errors="replace")
            raise RuntimeError(
                f"{self.executable}: a call ended with status {code}; made again, {again.returncode}: {said}"
            )

    def peak(self, folder: Path) -> float:
        """Run it once: the most memory that it, or a process that it started, had resident, in MiB."""
        told = folder / "peak"
        with self.stdin.open("rb") as stdin:
            command = [compiled("peak"), told, self.executable]
            subprocess.run(command, env=dict(self.environment), stdin=stdin, capture_output=True, check=True)
        return int(told.read_text()) / 1024


@dataclass(frozen=True)
class PodName:
    """What a runtime says of a pod; without a uid, as some do."""

    namespace: str
    name: str
    uid: str = ""


def call_for_pod(executable: Path, command: str, pod: PodName, netns: Path, stdin: Path) -> Call:
    """Make the call of a container runtime for a pod."""
    arguments = {
        "IgnoreUnknown": "1",
        "K8S_POD_NAMESPACE": pod.namespace,
        "K8S_POD_NAME": pod.name,
        "K8S_POD_INFRA_CONTAINER_ID": SANDBOX,
    } | ({"K8S_POD_UID": pod.uid} if pod.uid else {})
    environment = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": SANDBOX,
        "CNI_NETNS": str(netns),
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": ";".join(f"{key}={value}" for key, value in arguments.items()),
        "CNI_PATH": "/opt/cni/bin",
    }
    return Call(executable, _PATH | environment, stdin)


def call_for_version(executable: Path, folder: Path) -> Call:
    """Make the VERSION of libcni, which names no pod and sends the version alone."""
    stdin = folder / "version.stdin"
    stdin.write_text('{"cniVersion":"1.0.0"}')
    dummy = {f"CNI_{name}": "dummy" for name in ("NETNS", "IFNAME", "PATH")}
    return Call(executable, _PATH | dummy | {"CNI_COMMAND": "VERSION", "CNI_CONTAINERID": "", "CNI_ARGS": ""}, stdin)


def write_config(path: Path, entry: Mapping[str, Any]) -> Path:
    """Write what libcni makes of a plugin's entry in the conflist: keys sorted, no blanks."""
    config = {"cniVersion": "1.0.0", "name": "k8s", "prevResult": PREV_RESULT} | dict(entry)
    path.write_text(json.dumps(config, sort_keys=True, separators=(",", ":")))
    return path


def in_turns(rounds: Sequence[Sequence[Call]]) -> list[list[float]]:
    """Run the calls of each round in turn, so that a machine that slows down slows all alike.

    Each round begins one place further on, as what a call leaves in the processor's caches favours or hinders the next.

    Returns:
        Milliseconds, a list for each place in a round.
    """
    measured = []
    for number, calls in enumerate(rounds):
        times = [0.0] * len(calls)
        for turn in range(len(calls)):
            place = (number + turn) % len(calls)
            time.sleep(PAUSE)
            times[place] = calls[place]()
        measured.append(times)
    return [list(times) for times in zip(*measured, strict=True)]


def at_once(calls: Sequence[Call]) -> list[float]:
    """Start all, wait for all: milliseconds from the first start to each end, the last one's last."""
    running: dict[int, Call] = {}
    ends: list[float] = []
    started = time.perf_counter()
    with selectors.DefaultSelector() as selector:
        try:
            for call in calls:
                running[process := call.start()] = call
                selector.register(os.pidfd_open(process), selectors.EVENT_READ, process)
            while running:
                ended = selector.select()
                now = time.perf_counter()
                for key, _ in ended:
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    running.pop(key.data).succeeded(key.data)
                    ends.append((now - started) * 1000)
        finally:
            for key in [*selector.get_map().values()]:
                os.close(key.fd)
            for process in running:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
    return ends


def percentile(times: Sequence[float], percent: float) -> float:
    """The smallest time that so many percent do not exceed."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def machine() -> dict[str, Any]:
    """Tell the machine: its kernel, its processors, and its load of the last minute."""
    system = os.uname()
    name = f"{system.sysname} {system.release} {system.machine}"
    return {"machine": name, "processors": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}


_PATH = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}  # the runtime's own

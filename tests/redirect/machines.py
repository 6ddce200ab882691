"""Machines: a pod's network namespace, a host outside and one behind its second interface, with real listeners and senders.

In the pod, the sidecar's ports are served by the sidecar's ids, all others by uid 1000. Rules come and go, and with them what
connection tracking remembers; the rest stays.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from plugin import netns
from plugin.apply import SESSIONS, apply
from plugin.netns import NetnsFd
from plugin.redirect import Family, Mode, Redirect
from plugin.rtnetlink import Rtnetlink
from plugin.rules import ruleset
from tests.redirect.kernel import acting_as, forget_connections
from tests.redirect.probes import APPLICATION, PROXY, ROOT, Fate, Place, Probe, Sender
from tests.redirect.topology import ADDRESSES, DEFAULT_ROUTES, FORWARDING, LINKS, ON_SECOND, OUTSIDE, SECOND
from tests.support.netns import Netns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    from plugin.backend import Backend

_T = TypeVar("_T")
PROJECT = Path(__file__).parents[2]
SOCKET_FAMILIES = {Family.V4: socket.AF_INET, Family.V6: socket.AF_INET6}
SIDECAR_PORTS = [15001, 15006, 15008, 15020, 15021, 15053, 15090]
PORTS = [53, 80, 443, 8080, 9000]
PATIENCE = 3.0  # seconds in which what should not be answered is not
LONG_PATIENCE = 60.0  # seconds for an answer: a few milliseconds, unless the processors are busy with others
IPV6_OF = ("all", "default", "lo", "eth0", "net1")
NEEDS = "+net_admin,+net_bind_service"  # capabilities: transparent listeners, ports below 1024


class Sidecar(Enum):
    """What stands for the sidecar: reports where traffic arrives, hands it on as Envoy does under TPROXY, is away."""

    REPORTS = "reports"
    PASSES_ON = "passes on"
    AWAY = "away"


class Machines:
    """The three of them; made once, used for many cases."""

    def __init__(
        self, folder: Path, sidecar: Sidecar = Sidecar.REPORTS, ids: Sender = PROXY, pod: type[Netns] = Netns
    ) -> None:
        """Prepare.

        Args:
            folder: for the network namespaces.
            sidecar: what its ports do.
            ids: whose they are.
            pod: what kind of netns the pod has.
        """
        self._folder = folder
        self._sidecar = sidecar
        self._ids = ids
        self._pod = pod
        self._ending = ExitStack()
        self._senders: dict[tuple[str, Sender], subprocess.Popen[str]] = {}

    def __enter__(self) -> Self:
        with self._ending as begun:
            self._join()
            self._serve()
            self._ending = begun.pop_all()
        return self

    def _join(self) -> None:
        kinds = {"pod": self._pod, "outside": Netns, "second": Netns}
        self._netns = {name: self._ending.enter_context(kind(self._folder / name)) for name, kind in kinds.items()}
        paths = {name: str(made.path) for name, made in self._netns.items()}
        self._worker = self._ending.enter_context(ThreadPoolExecutor(1))
        for name, commands in (("pod", LINKS), ("outside", OUTSIDE), ("second", SECOND), ("pod", DEFAULT_ROUTES)):
            self.inside(name, ["/usr/sbin/ip", "-batch", "-"], commands.strip().format(**paths))
        self.inside("pod", ["/usr/sbin/sysctl", "-w", *FORWARDING])

    def _serve(self) -> None:
        if self._sidecar is Sidecar.REPORTS:
            self._listen("pod", self._ids, SIDECAR_PORTS, [15053], transparent=[15006])
        elif self._sidecar is Sidecar.PASSES_ON:
            self._expect(self.start("pod", self._ids, "15006", module="tests.redirect.onward"))
        self._listen("pod", APPLICATION, PORTS, [53, 9000])
        for name in ("outside", "second"):
            self._listen(name, ROOT, [*SIDECAR_PORTS, *PORTS], [53, 9000])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.close()

    @contextmanager
    def redirected(self, redirect: Redirect, backend: Backend) -> Iterator[None]:
        """Have the pod's traffic redirected while the body runs; nothing of it is left behind."""
        self.apply(redirect, backend)
        try:
            yield
        finally:
            self.on_worker(lambda fd: _remove(fd, redirect, backend))

    def reset(self, backend: Backend) -> None:
        """Take the rules away, and give the pod back its addresses and its IPv6."""
        self.on_worker(lambda fd: _remove(fd, Redirect(families=tuple(Family), mode=Mode.TPROXY), backend))
        self.inside("pod", ["/usr/sbin/sysctl", "-qw", *(f"net.ipv6.conf.{each}.disable_ipv6=0" for each in IPV6_OF)])
        addresses = [line for line in LINKS.splitlines() if line.startswith("address")]
        anew = "\n".join([*addresses, DEFAULT_ROUTES]).replace(" add ", " replace ")
        self.inside("pod", ["/usr/sbin/ip", "-batch", "-"], anew.strip())

    def link_local(self) -> str:
        """Return the pod's link-local address, as the host outside sends to it."""
        listed = json.loads(self.inside("pod", ["/usr/sbin/ip", "-json", "-6", "address", "show", "dev", "eth0"]))
        return next(f"{each['local']}%eth0" for each in listed[0]["addr_info"] if each["scope"] == "link")

    def apply(self, redirect: Redirect, backend: Backend) -> None:
        """Write the rules, as an ADD does."""
        self.on_worker(lambda fd: apply(fd, redirect, backend).free())

    def on_worker(self, work: Callable[[NetnsFd], _T]) -> _T:
        """Do something with the pod's netns, on a thread that may enter it."""
        with self._netns["pod"].path.open("rb") as file:
            return self._worker.submit(work, NetnsFd(file.fileno())).result()

    def open_socket(self, sender: Sender, family: Family, kind: socket.SocketKind) -> socket.socket:
        """Open a socket in the pod's netns as this sender would; it stays in there and the sender's, whoever uses it."""

        def opened(fd: NetnsFd) -> socket.socket:
            with netns.entered(fd), acting_as(sender):
                return socket.socket(SOCKET_FAMILIES[family], kind)

        made = self.on_worker(opened)
        made.settimeout(PATIENCE)
        return made

    def inside(self, name: str, command: Sequence[str], given: str = "") -> str:
        """Run a command in a machine's netns, as root."""
        entered = ["/usr/bin/nsenter", f"--net={self._netns[name].path}", *command]
        return subprocess.run(
            entered, input=given, check=True, capture_output=True, text=True, timeout=90, cwd=PROJECT
        ).stdout

    def send(self, probes: Sequence[Probe], patience: float = PATIENCE) -> list[Fate]:
        """Send all probes at the same time; fates in the same order. What is not answered in so many seconds never is."""
        return self._send(probes, [patience] * len(probes))

    def _send(self, probes: Sequence[Probe], patience: Sequence[float]) -> list[Fate]:
        by_sender: dict[tuple[str, Sender], list[int]] = defaultdict(list)
        for index, probe in enumerate(probes):
            by_sender[_origin(probe)].append(index)
        for origin, indices in by_sender.items():
            self._ask(origin, [_as_sent(probes[index], patience[index]) for index in indices])
        reports: dict[int, Any] = {}
        for origin, indices in by_sender.items():
            reports.update(zip(indices, self._hear(origin), strict=True))
        return [_fate(probe, reports[index]) for index, probe in enumerate(probes)]

    def fates(self, expected: Mapping[Probe, Fate]) -> dict[Probe, Fate]:
        """Send all probes at the same time, each once; a busy machine takes long to answer those that it should."""
        patience = [PATIENCE if fate.port is None else LONG_PATIENCE for fate in expected.values()]
        return dict(zip(expected, self._send([*expected], patience), strict=True))

    def send_from_the_node(self, probe: Probe) -> Fate:
        """Send a probe by a process that the node runs in the pod's netns, with its sender's ids on the node."""
        origin = ("node", probe.sender or ROOT)
        self._ask(origin, [_as_sent(probe, PATIENCE)])
        return _fate(probe, self._hear(origin)[0])

    def report(self, probe: Probe, to: str | None = None) -> dict[str, Any]:
        """Send one probe, to another host if given: what the receiver reports, `own`, the sender's address, and the echo."""
        self._ask(_origin(probe), [_as_sent(probe, PATIENCE) | ({"host": to} if to else {})])
        report = self._hear(_origin(probe))[0]
        assert report, "nobody answered"
        return report

    def python(self, name: str, module: str, *arguments: str) -> str:
        """Run a Python module in a machine's netns, as root: what it prints."""
        return self.inside(name, [sys.executable, "-m", module, *arguments])

    def _ask(self, origin: tuple[str, Sender], probes: list[dict[str, Any]]) -> None:
        if origin not in self._senders:
            self._senders[origin] = self.start(*origin)
        sender = self._senders[origin].stdin
        assert sender is not None
        sender.write(json.dumps(probes) + "\n")
        sender.flush()

    def _hear(self, origin: tuple[str, Sender]) -> list[dict[str, Any] | None]:
        answers = self._senders[origin].stdout
        assert answers is not None
        line = answers.readline()
        assert line, f"the sender {origin} has ended; its reason is on stderr"
        heard: list[dict[str, Any] | None] = json.loads(line)
        return heard

    def _listen(
        self, name: str, ids: Sender, tcp: Sequence[int], udp: Sequence[int], transparent: Sequence[int] = ()
    ) -> None:
        listener = self.start(name, ids, *(json.dumps(list(ports)) for ports in (tcp, udp, transparent)))
        self._expect(listener)

    def _expect(self, listener: subprocess.Popen[str]) -> None:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "listening\n", "the listener has ended; its reason is on stderr"

    def start(
        self, name: str, ids: Sender, *arguments: str, module: str = "tests.redirect.remote"
    ) -> subprocess.Popen[str]:
        """Start a Python module in a machine, by other ids; it ends with its stdin."""
        by_node = ["/usr/bin/nsenter", f"--net={self._netns['pod'].path}"]
        command = [*(by_node if name == "node" else self._netns[name].entered), "/usr/bin/setpriv"]
        command += [f"--reuid={ids.uid}", f"--regid={ids.gid}", "--clear-groups"]
        command += [f"--inh-caps={NEEDS}", f"--ambient-caps={NEEDS}"]
        command += [sys.executable, "-m", module, *arguments]
        process = subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._ending.callback(_end, process)
        return process


def _origin(probe: Probe) -> tuple[str, Sender]:
    if probe.sender is not None:
        return "pod", probe.sender
    return ("outside" if probe.interface == "eth0" else "second"), ROOT


def _as_sent(probe: Probe, patience: float) -> dict[str, Any]:
    return {
        "host": host(probe),
        "port": probe.port,
        "udp": probe.udp,
        "source": _source(probe),
        "source_port": probe.source_port,
        "patience": patience,
    }


def _source(probe: Probe) -> str | None:
    addresses = ADDRESSES[probe.family]
    if probe.bound:
        return addresses[Place.PASS_THROUGH]
    if probe.to is Place.PASS_THROUGH:
        return addresses[Place.LOOPBACK]
    return addresses[Place.POD] if probe.source_port else None


def host(probe: Probe) -> str:
    """Say where a probe is sent to."""
    if probe.sender is None and probe.interface == "net1" and probe.to is Place.POD:
        return ON_SECOND[probe.family]
    return ADDRESSES[probe.family][probe.to]


def _fate(probe: Probe, report: dict[str, Any] | None) -> Fate:
    if report is None:
        return Fate(None)
    asked = report.get("asked")
    return Fate(
        port=report["port"],
        asked_for=(_place(probe, asked[0]), asked[1]) if asked else None,
        source=report["peer"][0] == report["own"][0],  # the kernel may give it another port, as two would be the same
    )


def _place(probe: Probe, address: str) -> Place:
    if address == host(probe):
        return probe.to
    return next(place for place, known in ADDRESSES[probe.family].items() if known == address)


def _remove(fd: NetnsFd, redirect: Redirect, backend: Backend) -> None:
    rules = ruleset(redirect)
    with netns.entered(fd), Rtnetlink() as kernel:
        session = SESSIONS[backend]()
        session.remove(rules)
        for route in rules.routes:
            kernel.delete(route)
        session.close()
        forget_connections()


def _end(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=60)

"""A node of a Kubernetes cluster on a machine of its own: kubelet, kube-proxy, containerd, runc, CNI plugins."""

from __future__ import annotations

import json
import logging
import os
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.programs.build import is_built
from tests.programs.lots import KUBE
from tests.support import nodeconfig as config
from tests.support.cri import Runtime
from tests.support.filling import fill
from tests.support.holder import remove_cgroups
from tests.support.images import PAUSE, archive
from tests.support.machine import NSENTER, Machine
from tests.support.processes import Processes
from tests.support.wait import BUSY, until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    from tests.support.nodeconfig import Parts, Place

CONF_DIR, BIN_DIR = Path("/etc/cni/net.d"), Path("/opt/cni/bin")  # as on most nodes
SLOWEST = 60.0  # seconds that a part may take to start

_CGROUPS = Path("/sys/fs/cgroup")
_WRITTEN_BY_A_KUBELET = (  # below /proc/sys, and not of the network namespace
    "vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
)  # fmt: skip
_DISKS = {  # what is in /run because a node's disks are: it outlives a boot
    "upper", "work", "var-lib", "var-lib-work", "containerd-root", "proc", "sysctl",
}  # fmt: skip
_MOUNTED_FOR_PODS = ("/run/containerd/", "/run/netns", "/var/lib/kubelet/pods/")
_LEFT = 1 << 20  # bytes: what the node writes while its disk is being filled
_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}  # capabilities(7)
_numbers = count(1)
_log = logging.getLogger("tests.node")


def lacking(parts: Parts) -> list[str]:
    """Say what this machine lacks to hold a node of these parts."""
    status = Path("/proc/self/status").read_text()
    held = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), 16)
    found = [name for name, bit in _CAPABILITIES.items() if not held >> bit & 1]
    if not any(os.access(each / "cgroup.procs", os.W_OK) for each in (_CGROUPS, *_CGROUPS.iterdir())):
        found.append(f"cgroups below {_CGROUPS} that may be written")
    if "\toverlay\n" not in Path("/proc/filesystems").read_text():
        found.append("the file system overlay")
    found += [f"{file} (`make setup istio` brings it)" for file in parts.files if not os.access(file, os.X_OK)]
    if not is_built(KUBE):
        found.append(f"Kubernetes in {KUBE.folder} (`make kube` builds it)")
    return found


class Worker:
    """One node, on a machine of its own; however the test ends, all of it goes with that machine.

    /etc, /opt and /var/log are the host's with what is written laid over them, so that files are where they are on a node.
    Configurations and logs are in the folder, and stay.
    """

    def __init__(self, folder: Path, place: Place, parts: Parts, certificate: Path) -> None:
        """Prepare.

        Args:
            folder: for configurations and logs, below nothing that the node has for itself.
            place: which of the cluster's nodes it is.
            parts: the programs below its kubelet.
            certificate: what the API server is known by.
        """
        for own in ("/run", "/etc", "/opt", "/var/lib", "/var/log"):
            assert not folder.resolve().is_relative_to(own), f"{folder}: a node has an {own} of its own"
        self.folder, self.place, self.parts = folder, place, parts
        self.certificate = certificate
        self._machine = Machine(f"istio-cni-e2e-{os.getpid()}-{next(_numbers)}")
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        self._commands: dict[str, tuple[str, ...]] = {}
        self._ending = ExitStack()

    @property
    def cgroup(self) -> str:
        """The name of the cgroup, in each hierarchy, that is above those of all pods."""
        return self._machine.cgroup

    @property
    def pid(self) -> int:
        """The process id of the machine's first process."""
        return self._machine.pid

    @property
    def netns(self) -> Path:
        """The node's own network namespace."""
        return self._machine.netns

    @property
    def enter(self) -> list[str]:
        """What to put before a command so that it runs on the node, in all of its namespaces."""
        return [NSENTER, f"--target={self._machine.pid}", "--net", "--mount", "--pid", "--"]

    def seen(self, path: Path) -> Path:
        """Translate an absolute path on the node to one that works here."""
        return self._machine.seen(str(path))

    def run(self, command: Sequence[str]) -> str:
        """Run a command on the node, and return its stdout; an error is `Machine.run`'s."""
        return self._machine.run(command).stdout

    def run_to_end(self, command: Sequence[str], log: Path, within: float) -> int:
        """Run a command on the node that takes long; arguments and error are those of `Machine.run_to_end`."""
        return self._machine.run_to_end(command, log, within)

    @property
    def processes(self) -> Processes:
        """All that run on the node, in its pods too."""
        return Processes(self._machine)

    def ip(self, *commands: str) -> None:
        """Run commands of `ip` on the node."""
        for command in commands:
            self.run(["/usr/sbin/ip", *command.split()])

    def import_images(self, tar: Path) -> None:
        """Give the node the images of an OCI or docker archive, under the names that it says.

        The client of containerd 2 would have the server read the archive, in small pieces, for twice the time of a processor.
        """
        local = ["--local"] if self.parts.containerd_config == 3 else []
        self.run([str(self.parts.programs / "ctr"), "--namespace=k8s.io", "images", "import", *local, str(tar)])

    def plugins_loaded(self) -> list[str]:
        """List the plugin types of the CNI configuration that the runtime has loaded, in the chain's order."""
        return self._runtime.plugins_loaded()

    def write_primary(self, *pods: str) -> None:
        """Write the primary CNI's conflist as primary CNIs do, beside it, then rename; with other networks of pods, if any."""
        self.put_primary(self.write_primary_beside(*pods))

    def write_primary_beside(self, *pods: str) -> Path:
        """Write the primary CNI's conflist, and leave it beside its place; with other networks of pods, if any."""
        beside = self.seen(CONF_DIR) / ".10-k8s.tmp"
        beside.write_text(json.dumps(config.conflist(self.parts, pods or self.place.pods), indent=2) + "\n")
        return beside

    def put_primary(self, beside: Path) -> None:
        """Rename a conflist that is beside its place."""
        beside.rename(beside.with_name("10-k8s.conflist"))

    @contextmanager
    def full_disk(self, where: Path) -> Iterator[None]:
        """Leave no byte free on a disk of the node's within the block: a tmpfs, such as /run, where most that it writes is."""
        disk = self.seen(where)
        room = os.statvfs(disk)
        used = (room.f_blocks - room.f_bfree) * room.f_frsize
        resize = ["/usr/bin/mount", "-o"]
        try:
            self.run([*resize, f"remount,size={used + _LEFT}", str(where)])
            fill(disk)
            yield
        finally:
            self.run([*resize, "remount,size=50%", str(where)])
            (disk / "filler").unlink(missing_ok=True)

    def stop(self, part: str) -> None:
        """End one of its parts as `kill -9` does."""
        self.processes.kill(self.processes.running(self._commands[part]))
        self._started.pop(part).wait()

    def restart_runtime(self) -> None:
        """End containerd as `kill -9` does, and start it again; its shims and the pods stay."""
        self.stop("containerd")
        self._start_containerd()

    def restart(self, part: str) -> None:
        """End another of its parts as `kill -9` does, and start it again."""
        self.stop(part)
        self.start(part)

    def start(self, part: str) -> None:
        """Start one of its parts that was stopped."""
        self._start(part, *self._commands[part])

    def lose_power(self) -> None:
        """End all processes at once, and leave nothing in /run, as on a node that is to boot."""

        def is_still() -> bool:
            running = self.processes.all().keys() - {1}
            with suppress(AssertionError):  # one has ended meanwhile
                if running:
                    self.processes.kill(running)
            return not running

        until(is_still, SLOWEST, f"all processes of {self.place.name} have ended")
        for process in self._started.values():
            process.wait()
        self._started.clear()
        mounted = [line.split()[4] for line in self.seen(Path("/proc/1/mountinfo")).read_text().splitlines()]
        self.run(["/usr/bin/umount", "--lazy", *(path for path in mounted[::-1] if path.startswith(_MOUNTED_FOR_PODS))])
        volatile = [path.name for path in self.seen(Path("/run")).iterdir() if path.name not in _DISKS]
        self.run(["/usr/bin/rm", "--recursive", "--one-file-system", *(f"/run/{name}" for name in volatile)])
        self.ip("link delete cni0")
        remove_cgroups(f"{self.cgroup}/kubepods")

    def boot(self) -> None:
        """Start a worker that lost power."""
        self._start_containerd()
        self._start_kubelet()

    def logs(self) -> str:
        """Return the ends of all logs: those of its parts and those of the pods."""
        pods = self.seen(Path("/var/log/pods"))
        told = []
        for log in (*sorted(self.folder.glob("*.log")), *sorted(pods.glob("*/*/*.log"))):
            lines = log.read_text(errors="replace").splitlines()[-40:]
            told.append("\n".join([f"--- the end of {log}:", *lines]))
        return "\n".join(told)

    def __enter__(self) -> Self:
        missing = lacking(self.parts)
        assert not missing, f"this machine cannot hold a Kubernetes node, as it lacks: {'; '.join(missing)}"
        with ExitStack() as ending:
            ending.enter_context(self._machine)
            self._lay_out()
            self._runtime = Runtime(
                self.seen(Path(config.CONTAINERD_SOCKET)), self._machine, log_folder=self.folder / "sandboxes"
            )
            ending.callback(self._runtime.close)
            try:
                self._start_all()
            except AssertionError as error:
                error.add_note(self.logs())
                raise
            self._ending = ending.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.close()

    def _start_all(self) -> None:
        self._start_runtime()
        self._start_kubelet()

    def _start_containerd(self) -> None:
        self._start(
            "containerd", str(self.parts.programs / "containerd"), f"--config={self.folder / 'containerd.toml'}"
        )
        # A call before there is a socket would make the client wait a second before it tries again.
        socket = self.seen(Path(config.CONTAINERD_SOCKET))
        self._until(lambda: socket.is_socket() and self._runtime.answers(), "containerd has started")

    def _start_runtime(self) -> None:
        self._start_containerd()
        tar = archive(self.folder / "images.tar")
        self.import_images(tar)
        tar.unlink()

    def _start_kubelet(self) -> None:
        self._start("kubelet", *config.kubelet_command(self.place, KUBE.folder, self.folder))
        self._start("kube-proxy", *config.kube_proxy_command(KUBE.folder, self.folder))

    def _lay_out(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for own in ("etc", "opt", "var/log"):
            for kind in ("upper", "work"):
                self.seen(Path("/run", kind, own)).mkdir(parents=True)
            layers = f"lowerdir=/{own},upperdir=/run/upper/{own},workdir=/run/work/{own}"
            self.run(["/usr/bin/mount", "-t", "overlay", "-o", layers, "overlay", f"/{own}"])
        for name in _WRITTEN_BY_A_KUBELET:
            file = self.seen(Path("/run/sysctl", name))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(Path("/proc/sys", name).read_text())
            self.run(["/usr/bin/mount", "--bind", f"/run/sysctl/{name}", f"/proc/sys/{name}"])
        # A pod with a user namespace gets a /proc only if the node has one that is seen in full, with nothing laid over it.
        self.seen(Path("/run/proc")).mkdir()
        self.run(["/usr/bin/mount", "-t", "proc", "proc", "/run/proc"])
        # Its volumes and files are mounted with mapped ids there, and overlay cannot do that.
        self.seen(Path("/var/lib/kubelet")).mkdir(exist_ok=True)
        self.run(["/usr/bin/mount", "-t", "tmpfs", "kubelet", "/var/lib/kubelet"])
        self.run(["/usr/bin/mount", "--make-rshared", "/"])  # pods may ask for HostToContainer
        self._make_cgroups()
        self._write_files()

    def _make_cgroups(self) -> None:
        """Make those that the kubelet wants to find; the machine's holder removes them."""
        hierarchies = [_CGROUPS] if (_CGROUPS / "cgroup.controllers").exists() else _CGROUPS.iterdir()
        for hierarchy in hierarchies:
            if not (hierarchy / "cgroup.procs").exists():
                continue
            own = hierarchy / self.cgroup
            own.mkdir(exist_ok=True)  # one hierarchy may have two names
            for setting in ("cpuset.cpus", "cpuset.mems"):
                if not (_CGROUPS / "cgroup.controllers").exists() and (own / setting).exists():
                    (own / setting).write_text((hierarchy / setting).read_text())

    def _write_files(self) -> None:
        conf_dir, bin_dir = self.seen(CONF_DIR), self.seen(BIN_DIR)
        for made in (conf_dir, bin_dir):
            made.mkdir(parents=True, exist_ok=True)
        for plugin in config.CNI_PLUGINS:
            (bin_dir / plugin).symlink_to(self.parts.plugins / plugin)
        self.write_primary()
        (self.folder / "containerd.toml").write_text(config.containerd(self.parts, PAUSE, CONF_DIR, BIN_DIR))
        (self.folder / "resolv.conf").touch()
        told = config.kubelet(self.place, self.cgroup, self.folder / "resolv.conf")
        self._write_json("kubelet-config.json", told)
        self._write_json("kube-proxy-config.json", config.kube_proxy(self.place, self.folder / "kube-proxy.json"))
        for name, user in (("kubelet", self.place.kubelet), ("kube-proxy", "kube-proxy")):
            self._write_json(f"{name}.json", config.kubeconfig(self.certificate, config.token(user)))

    def _write_json(self, name: str, content: dict[str, Any]) -> Path:
        path = self.folder / name
        path.write_text(json.dumps(content, indent=2) + "\n")
        return path

    def _start(self, name: str, *command: str) -> None:
        self._commands[name] = command
        with (self.folder / f"{name}.log").open("ab") as log:
            self._started[name] = self._machine.start(command, log)

    def _until(self, predicate: Callable[[], object], what: str) -> None:
        def is_so() -> bool:
            for name, process in self._started.items():
                ended = process.poll()
                assert ended is None, f"{name} ended with {ended}; {self.folder / name}.log says why"
            return bool(predicate())

        _log.info("%s: waiting until %s, for at most %.0f s", self.place.name, what, BUSY * SLOWEST)
        until(is_so, SLOWEST, what)

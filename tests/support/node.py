"""A whole Kubernetes of one node, with nothing left out: control plane, kubelet, kube-proxy, containerd, runc, CNI plugins."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.programs.lots import KUBE
from tests.support import nodeconfig as config
from tests.support.cri import Runtime
from tests.support.images import PAUSE, archive
from tests.support.machine import ENVIRONMENT, NSENTER, Machine, checked
from tests.support.nodeconfig import ADDRESS, NAME
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

CONF_DIR, BIN_DIR = Path("/etc/cni/net.d"), Path("/opt/cni/bin")  # as on most nodes
SLOWEST = 60.0  # seconds that a part may take to start

_CGROUPS = Path("/sys/fs/cgroup")
_WRITTEN_BY_A_KUBELET = (  # below /proc/sys, and not of the network namespace
    "vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
)  # fmt: skip
_numbers = count(1)


class KubernetesNode:
    """One node that is its own control plane, on a machine of its own; however the test ends, all of it goes with that machine.

    /etc, /opt and /var/log are the host's with what is written laid over them, so that files are where they are on a node.
    Configurations and logs are in the folder, and stay.
    """

    def __init__(self, folder: Path) -> None:
        """Prepare.

        Args:
            folder: for configurations and logs, below nothing that the node has for itself.
        """
        for own in ("/run", "/etc", "/opt", "/var/lib", "/var/log"):
            assert not folder.resolve().is_relative_to(own), f"{folder}: a node has an {own} of its own"
        self.folder = folder
        self.kubeconfig = folder / "admin.json"
        self._machine = Machine(f"istio-cni-e2e-{os.getpid()}-{next(_numbers)}")
        self._parts: dict[str, subprocess.Popen[bytes]] = {}
        self._ending = ExitStack()

    @property
    def cgroup(self) -> str:
        """The name of the cgroup, in each hierarchy, that is above those of all pods."""
        return self._machine.cgroup

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

    def kubectl(self, *arguments: str, stdin: str = "", within: float = SLOWEST, check: bool = True) -> str:
        """Run kubectl as the admin, and return its stdout.

        Raises:
            AssertionError: with its stderr, if it fails and `check` is set.
        """
        own = [f"--kubeconfig={self.kubeconfig}", f"--cache-dir={self.folder / 'kubectl'}"]
        command = [*self.enter, str(KUBE.folder / "kubectl"), *own, *arguments]
        ended = subprocess.run(
            command, env=ENVIRONMENT, input=stdin, capture_output=True, text=True, timeout=within, check=False
        )
        return checked(ended).stdout if check else ended.stdout + ended.stderr

    def apply(self, *objects: dict[str, Any]) -> None:
        """Create objects, or change them to this."""
        items = {"apiVersion": "v1", "kind": "List", "items": objects}
        self.kubectl("apply", "--filename=-", stdin=json.dumps(items))

    def wait(self, condition: str, *what: str, within: float = SLOWEST) -> None:
        """Wait until objects exist and have a condition.

        Args:
            condition: such as `condition=Ready`.
            what: objects and their namespace, as kubectl's arguments.
            within: seconds.
        """
        for awaited in ("create", condition):
            self.kubectl("wait", f"--for={awaited}", f"--timeout={within:.0f}s", *what, within=within + 10)

    def import_images(self, tar: Path) -> None:
        """Give the node the images of an OCI or docker archive, under the names that it says."""
        self._machine.run([config.CTR, "--namespace=k8s.io", "images", "import", str(tar)])

    def plugins_loaded(self) -> list[str]:
        """List the plugin types of the CNI configuration that the runtime has loaded, in the chain's order."""
        return self._runtime.plugins_loaded()

    def kubeconfig_of(self, account: str, namespace: str) -> Path:
        """Write a kubeconfig with a token that the API server issues for a service account."""
        token = self.kubectl("create", "token", account, f"--namespace={namespace}").strip()
        return self._write_json(f"{account}.json", config.kubeconfig(self._certificate, token))

    def write_primary(self) -> None:
        """Write the primary CNI's conflist as primary CNIs do: beside it, then rename."""
        beside = self.seen(CONF_DIR) / ".10-k8s.tmp"
        beside.write_text(json.dumps(config.CONFLIST, indent=2) + "\n")
        beside.rename(beside.with_name("10-k8s.conflist"))

    def rss(self) -> dict[str, int]:
        """Tell the resident memory of each part of Kubernetes, in bytes, by its name."""
        found: dict[str, int] = {}
        for status in Path(f"/proc/{self._machine.pid}/root/proc").glob("[0-9]*/status"):
            facts = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
            name = (status.parent / "comm").read_text().strip()
            found[name] = found.get(name, 0) + int(facts.get("VmRSS", "0 kB").split()[0]) * 1024
        return found

    def logs(self) -> str:
        """Say what the cluster looks like, and return the ends of all logs: those of its parts and those of the pods."""
        looks = (("get", "pods", "--all-namespaces", "--output=wide"), ("get", "events", "--all-namespaces"))
        told = [f"--- kubectl {' '.join(look)}:\n{self.kubectl(*look, check=False)}" for look in looks]
        return "\n".join([*told, self._ends_of_logs()])

    def _ends_of_logs(self) -> str:
        pods = self.seen(Path("/var/log/pods"))
        told = []
        for log in (*sorted(self.folder.glob("*.log")), *sorted(pods.glob("*/*/*.log"))):
            lines = log.read_text(errors="replace").splitlines()[-40:]
            told.append("\n".join([f"--- the end of {log}:", *lines]))
        return "\n".join(told)

    def __enter__(self) -> Self:
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
                error.add_note(self._ends_of_logs())
                raise
            self._ending = ending.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.close()

    @property
    def _certificate(self) -> Path:
        return self.folder / "certificates" / "apiserver.crt"

    def _lay_out(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for own in ("etc", "opt", "var/log"):
            for kind in ("upper", "work"):
                self.seen(Path("/run", kind, own)).mkdir(parents=True)
            layers = f"lowerdir=/{own},upperdir=/run/upper/{own},workdir=/run/work/{own}"
            self._machine.run(["/usr/bin/mount", "-t", "overlay", "-o", layers, "overlay", f"/{own}"])
        for name in _WRITTEN_BY_A_KUBELET:
            file = self.seen(Path("/run/sysctl", name))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(Path("/proc/sys", name).read_text())
            self._machine.run(["/usr/bin/mount", "--bind", f"/run/sysctl/{name}", f"/proc/sys/{name}"])
        self._machine.run(["/usr/bin/mount", "--make-rshared", "/"])  # pods may ask for HostToContainer
        for command in config.NETWORK:
            self._machine.run(["/usr/sbin/ip", *command.split()])
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
        for plugin in ("bridge", "host-local", "portmap", "loopback"):
            (bin_dir / plugin).symlink_to(f"/usr/lib/cni/{plugin}")
        self.write_primary()
        (self.folder / "containerd.toml").write_text(config.containerd(PAUSE, CONF_DIR, BIN_DIR))
        (self.folder / "resolv.conf").touch()
        self._write_json("kubelet-config.json", config.kubelet(self.cgroup, self.folder / "resolv.conf"))
        self._write_json("kube-proxy-config.json", config.kube_proxy(self.folder / "kube-proxy.json"))
        (self.folder / "tokens.csv").write_text(config.tokens())
        for user in config.USERS:
            self._write_json(f"{user}.json", config.kubeconfig(self._certificate, config.token(user)))
        key = self.folder / "service-account.key"
        subprocess.run(["/usr/bin/openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)

    def _write_json(self, name: str, content: dict[str, Any]) -> Path:
        path = self.folder / name
        path.write_text(json.dumps(content, indent=2) + "\n")
        return path

    def _start_all(self) -> None:
        where, folder = KUBE.folder, self.folder
        self._start("etcd", *config.etcd())
        self._start("kube-apiserver", *config.apiserver(where, folder))
        self._start("containerd", config.CONTAINERD, f"--config={folder / 'containerd.toml'}")
        self._until(self._machine.seen(config.CONTAINERD_SOCKET).is_socket, "containerd has started")
        tar = archive(folder / "images.tar")
        self.import_images(tar)
        tar.unlink()
        self._until(lambda: self.kubectl("get", "--raw=/readyz", check=False) == "ok", "the API server is ready")
        for name in ("kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"):
            self._start(name, *config.OTHERS[name](where, folder))
        self.wait("condition=Ready", f"node/{NAME}")
        self.kubectl("wait", "--for=create", "serviceaccount/default", "--timeout=60s", within=70)

    def _start(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._parts[name] = self._machine.start(command, log)

    def _until(self, predicate: Any, what: str) -> None:
        def is_so() -> bool:
            for name, process in self._parts.items():
                ended = process.poll()
                assert ended is None, f"{name} ended with {ended}; {self.folder / name}.log says why"
            return bool(predicate())

        until(is_so, SLOWEST, what)


__all__ = ["ADDRESS", "BIN_DIR", "CONF_DIR", "NAME", "KubernetesNode"]

"""A node with a real container runtime: Debian's containerd and runc on a machine of its own."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.support import nodeconfig
from tests.support.cri import Pod, Runtime
from tests.support.images import IMAGES, PAUSE, archive
from tests.support.machine import NSENTER, Machine, run_in
from tests.support.wait import until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence
    from types import TracebackType

CONTAINERD = "/usr/bin/containerd"
CTR = "/usr/bin/ctr"
DEBIAN_PLUGINS = Path("/usr/lib/cni")
SLOWEST = 30.0  # seconds

# State and socket are at their default places: the machine's /run is its own, and goes with it.
_SOCKET = "/run/containerd/containerd.sock"
_PRIMARY = {
    "cniVersion": "1.0.0",
    "name": "k8s",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "ipMasq": False,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:10:244:1::/64"}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}
_numbers = count(1)


class Node:
    """containerd with the usual CNI plugins; what remains of it in its folder are configuration and logs."""

    def __init__(self, folder: Path) -> None:
        """Prepare.

        Args:
            folder: an empty one for configuration and logs, outside /run and /var/lib, which a node has for itself.
        """
        assert not folder.resolve().is_relative_to("/run"), f"{folder}: a node has a /run of its own"
        assert not folder.resolve().is_relative_to("/var/lib"), f"{folder}: a node has a /var/lib of its own"
        self.folder = folder
        self.conf_dir, self.bin_dir = folder / "net.d", folder / "cni"
        self.log = folder / "containerd.log"
        self._machine = Machine(f"istio-cni-tests-{os.getpid()}-{next(_numbers)}")
        self._ending = ExitStack()

    @property
    def netns(self) -> Path:
        """The node's own network namespace."""
        return self._machine.netns

    @property
    def cgroup(self) -> str:
        """The name of the cgroup, in each hierarchy, that is above those of all pods."""
        return self._machine.cgroup

    @property
    def enter(self) -> list[str]:
        """What to put before a command so that it runs in the node's network namespace."""
        return [NSENTER, f"--net={self.netns}", "--"]

    def seen(self, path: str) -> Path:
        """Translate an absolute path on the node to one that works here."""
        return self._machine.seen(path)

    def write_primary(self) -> Path:
        """Write the primary CNI's conflist as primary CNIs do: beside it, then rename."""
        conflist = self.conf_dir / "10-k8s.conflist"
        beside = conflist.with_name(".10-k8s.tmp")
        beside.write_text(json.dumps(_PRIMARY, indent=2) + "\n")
        return beside.replace(conflist)

    def network_ready(self) -> tuple[bool, str]:
        """Tell whether the runtime finds the node's network ready, and what it says about it."""
        return self.runtime.network_ready()

    def wait_network_ready(self) -> None:
        """Wait until the runtime finds the node's network ready."""
        until(lambda: self.network_ready()[0], SLOWEST, "the runtime finds the network ready")

    def plugins_loaded(self) -> list[str]:
        """List the plugin types of the CNI configuration that the runtime has loaded, in the chain's order."""
        return self.runtime.plugins_loaded()

    def run_sandbox(
        self, namespace: str, name: str, *, uid: str | None = None, annotations: Mapping[str, str] | None = None
    ) -> Pod:
        """Bring up a pod's sandbox; arguments and error are those of `Runtime.run_sandbox`."""
        return self.runtime.run_sandbox(namespace, name, uid=uid, annotations=annotations)

    def run(self, command: Sequence[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of the host's in the node's network namespace; all else is as with `run_in`."""
        return run_in(self.netns, command, check=check)

    def run_inside(self, command: Sequence[str]) -> None:
        """Run a command in all of the node's namespaces, with its /run."""
        self._machine.run(command)

    def run_to_end(self, command: Sequence[str], log: Path, within: float) -> int:
        """Run a long command in all of the node's namespaces; arguments and error are those of `Machine.run_to_end`."""
        return self._machine.run_to_end(command, log, within)

    def __enter__(self) -> Self:
        with ExitStack() as ending:
            ending.enter_context(self._machine)
            self._lay_out()
            self.runtime = Runtime(self._machine.seen(_SOCKET), self._machine, log_folder=self.folder / "pods")
            ending.callback(self.runtime.close)
            self._start_containerd()
            self._import_images()
            ending.callback(self.runtime.remove_all)
            self._ending = ending.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.close()

    def _lay_out(self) -> None:
        self.conf_dir.mkdir(parents=True)
        self.bin_dir.mkdir()
        for name in ("bridge", "host-local", "portmap", "loopback"):
            (self.bin_dir / name).symlink_to(DEBIAN_PLUGINS / name)
        # native: it works below any file system, overlayfs does not
        config = nodeconfig.containerd_1(PAUSE, self.conf_dir, self.bin_dir, snapshotter="native")
        (self.folder / "containerd.toml").write_text(config)

    def _start_containerd(self) -> None:
        with self.log.open("ab") as log:
            process = self._machine.start([CONTAINERD, f"--config={self.folder / 'containerd.toml'}"], log)

        def is_up() -> bool:
            assert process.poll() is None, f"containerd ended with {process.returncode}:\n{self.log.read_text()}"
            # A call before there is a socket would make the client wait a second before it tries again.
            return self._machine.seen(_SOCKET).is_socket() and self.runtime.answers()

        until(is_up, SLOWEST, "containerd has started")

    def _import_images(self) -> None:
        tar = archive(self.folder / "images.tar")
        self._machine.run([CTR, "--namespace=k8s.io", "images", "import", "--snapshotter=native", str(tar)])
        tar.unlink()
        # The CRI part of containerd hears of them by an event.
        until(lambda: all(map(self.runtime.has_image, IMAGES)), SLOWEST, f"the runtime knows {', '.join(IMAGES)}")

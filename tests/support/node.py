"""A whole Kubernetes of one node or two, with nothing left out: the first node is its own control plane."""

from __future__ import annotations

import logging
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from urllib3.exceptions import HTTPError

from tests.programs.lots import KUBE
from tests.support import keys
from tests.support import nodeconfig as config
from tests.support.admin import Admin
from tests.support.conditions import is_rolled_out, meets
from tests.support.machine import ENVIRONMENT, checked, run_in
from tests.support.nodeconfig import DEBIAN, FIRST, RECENT, SECOND
from tests.support.wait import BUSY, until
from tests.support.worker import BIN_DIR, CONF_DIR, SLOWEST, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NAME, ADDRESS = FIRST.name, FIRST.addresses[0]
_IP = "/usr/sbin/ip"
_log = logging.getLogger("tests.node")


class KubernetesNode(Worker):
    """The first node: Debian's containerd and, besides, etcd, the API server and what goes with it."""

    def __init__(self, folder: Path) -> None:
        """Prepare.

        Args:
            folder: for configurations and logs, below nothing that the node has for itself.
        """
        super().__init__(folder, FIRST, DEBIAN, folder / "certificates" / "apiserver.crt")
        self.kubeconfig = folder / "admin.json"

    def kubectl(self, *arguments: str, stdin: str = "", within: float = SLOWEST, check: bool = True) -> str:
        """Run kubectl as the admin, and return its stdout.

        Raises:
            AssertionError: with its stderr, if it fails and `check` is set.
        """
        command = self.kubectl_command(*arguments)
        ended = subprocess.run(
            command, env=ENVIRONMENT, input=stdin, capture_output=True, text=True, timeout=within, check=False
        )
        return checked(ended).stdout if check else ended.stdout + ended.stderr

    def kubectl_command(self, *arguments: str) -> list[str]:
        """Return the command that runs kubectl as the admin."""
        own = [f"--kubeconfig={self.kubeconfig}", f"--cache-dir={self.folder / 'kubectl'}"]
        return [*self.enter, str(KUBE.folder / "kubectl"), *own, *arguments]

    def read(self, what: str, namespace: str = "default", **labels: str) -> dict[str, Any]:
        """Read an object or a list of them; empty if there is none.

        Args:
            what: `KIND/NAME` or `KIND`, as kubectl takes it.
            namespace: which one, if the kind has them.
            labels: that each object of a list is to have.
        """
        selector = "%2C".join(f"{key}%3D{value}" for key, value in labels.items())
        return self.admin.read(self.admin.find(what, namespace) + (f"?labelSelector={selector}" if labels else ""))

    def apply(self, *objects: dict[str, Any]) -> None:
        """Create objects, or change them to this."""
        self.admin.apply(*objects)

    def wait(self, condition: str, *what: str, within: float = SLOWEST) -> None:
        """Wait until objects exist and have a condition.

        Args:
            condition: as `kubectl wait --for` takes it, such as `condition=Ready`.
            what: objects, as `KIND/NAME`, and the option `--namespace=`.
            within: seconds, on an idle machine.
        """
        namespaces = [each.removeprefix("--namespace=") for each in what if each.startswith("--")]
        for each in what[: len(what) - len(namespaces)]:
            self._wait(lambda each=each: meets(self.read(each, *namespaces), condition), within, f"{each}: {condition}")  # type: ignore[misc]

    def rolled_out(self, what: str, namespace: str, within: float) -> None:
        """Wait until a Deployment, DaemonSet or StatefulSet is rolled out.

        Args:
            what: `KIND/NAME`.
            namespace: its namespace.
            within: seconds, on an idle machine.
        """
        self._wait(lambda: is_rolled_out(self.read(what, namespace)), within, f"{what} is rolled out")

    def _wait(self, predicate: Callable[[], object], within: float, what: str) -> None:
        _log.info("waiting until %s, for at most %.0f s", what, BUSY * within)
        until(predicate, within, what)

    @contextmanager
    def without_api_server(self) -> Iterator[None]:
        """End the API server as `kill -9` does, and start it again after the block; etcd keeps what was written."""
        self.stop("kube-apiserver")
        try:
            yield
        finally:
            self.start("kube-apiserver")
            self._wait_for_the_api_server()

    def kubeconfig_of(self, account: str, namespace: str) -> Path:
        """Write a kubeconfig with a token that the API server issues for a service account."""
        token = self.kubectl("create", "token", account, f"--namespace={namespace}").strip()
        return self._write_json(f"{account}.json", config.kubeconfig(self.certificate, token))

    def logs(self) -> str:
        """Say what the cluster looks like, and return the ends of all logs: those of its parts and those of the pods."""
        looks = (("get", "pods", "--all-namespaces", "--output=wide"), ("get", "events", "--all-namespaces"))
        told = [f"--- kubectl {' '.join(look)}:\n{self.kubectl(*look, check=False)}" for look in looks]
        return "\n".join([*told, super().logs()])

    def _wait_for_the_api_server(self) -> None:
        self._until(self._is_ready, "the API server is ready")

    def _is_ready(self) -> bool:
        try:
            return self.admin.is_ready()
        except (OSError, HTTPError):
            return False

    def _lay_out(self) -> None:
        super()._lay_out()
        self.ip(*config.network(FIRST))

    def _write_files(self) -> None:
        super()._write_files()
        (self.folder / "tokens.csv").write_text(config.tokens())
        for user in ("admin", "kube-controller-manager", "kube-scheduler"):
            self._write_json(f"{user}.json", config.kubeconfig(self.certificate, config.token(user)))
        keys.write_signing_key(self.folder / "service-account.key")
        keys.write_certificate(self.certificate.parent, config.API_ADDRESSES)

    def _start_all(self) -> None:
        where, folder = KUBE.folder, self.folder
        self._start("etcd", *config.etcd())
        self._start("kube-apiserver", *config.apiserver(where, folder))
        self._start_runtime()
        server = config.kubeconfig(self.certificate, "")["clusters"][0]["cluster"]["server"]
        self.admin = Admin(server, config.token("admin"), self.certificate, self.netns)
        self._wait_for_the_api_server()
        self._start("kube-controller-manager", *config.controller_manager(where, folder))
        self._start("kube-scheduler", *config.scheduler(where, folder))
        self._start_kubelet()
        self.wait("condition=Ready", f"node/{NAME}")
        self._until(lambda: self.read("serviceaccount/default"), "the namespace `default` has its service account")


class _Second(Worker):
    """Takes the end of the first node's cable that leads nowhere."""

    def __init__(self, folder: Path, first: KubernetesNode) -> None:
        super().__init__(folder, SECOND, RECENT, first.certificate)
        self._first = first

    def _lay_out(self) -> None:
        super()._lay_out()
        run_in(self._first.netns, [_IP, "link", "set", "uplink", "netns", str(self.pid), "name", "eth0"])
        self.ip(*config.addresses(SECOND), *config.routes(FIRST))


@dataclass(frozen=True)
class TwoNodes:
    """A cluster of two nodes: one as Debian has its parts, one as the projects publish them today."""

    first: KubernetesNode
    second: Worker

    @property
    def nodes(self) -> tuple[Worker, Worker]:
        """Both."""
        return self.first, self.second

    def import_images(self, tar: Path) -> None:
        """Give both the images of an archive."""
        for node in self.nodes:
            node.import_images(tar)

    def logs(self) -> str:
        """Return the ends of both nodes' logs."""
        return "\n".join(node.logs() for node in self.nodes)


@contextmanager
def two_nodes(folder: Path) -> Iterator[TwoNodes]:
    """Bring up both nodes, and wait until they are Ready.

    Args:
        folder: for configurations and logs, as a node's.
    """
    with KubernetesNode(folder / FIRST.name) as first, _Second(folder / SECOND.name, first) as second:
        first.ip(*config.routes(SECOND))
        first.wait("condition=Ready", f"node/{SECOND.name}")
        yield TwoNodes(first, second)


__all__ = ["ADDRESS", "BIN_DIR", "CONF_DIR", "NAME", "KubernetesNode", "TwoNodes", "Worker", "two_nodes"]

"""Istio from its own charts, as its documentation installs it beside a CNI plugin, and applications that it injects."""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.e2e import workloads
from tests.e2e.helm import Helm
from tests.e2e.istio import coredns
from tests.e2e.istio.images import HUB, TAG
from tests.programs.lots import ISTIO, KUBE
from tests.support.images import compiled
from tests.support.machine import NSENTER
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.support.node import TwoNodes, Worker

SYSTEM = "istio-system"
MESHED, PLAIN = "meshed", "plain"  # namespaces: one whose pods istiod injects, and one where it does not
INIT, VALIDATION = (
    "istio-init",
    "istio-validation",
)  # what istiod injects besides the sidecar: the latter for a CNI plugin
PRIVILEGED = "privileged"  # one for sidecars with capabilities, as TPROXY needs them
SLOWEST = 240.0  # seconds that a part may take to become ready

_CHARTS = ISTIO.folder / "charts"
_ISTIOD = str(_CHARTS / "istio-control" / "istio-discovery")
_IP = "/usr/sbin/ip"
_log = logging.getLogger("tests.node")
_HANDSHAKES = r"listener\..*ssl\.handshake"
# PyPI's Envoy is the upstream one, without the filters that Istio's own build has.
_VALUES: dict[str, Any] = {
    "global": {
        "hub": HUB,
        "tag": TAG,
        "imagePullPolicy": "Never",
        "proxy": {
            "seccompProfile": {"type": "RuntimeDefault"},  # Pod Security `restricted` asks for it
            "resources": {"requests": {"cpu": "5m", "memory": "32Mi"}},
        },
    },
    "pilot": {
        "cni": {"enabled": True},
        "autoscaleEnabled": False,
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
        "env": {
            "PILOT_ENABLE_ALPN_FILTER": "false",
            "PILOT_ENABLE_METADATA_EXCHANGE": "false",
            "ISTIO_DUAL_STACK": "true",
        },
        "ipFamilyPolicy": "RequireDualStack",
    },
    "telemetry": {"enabled": False},
    "meshConfig": {
        "accessLogFile": "/dev/stdout",
        "defaultProviders": {"metrics": []},
        "defaultConfig": {"proxyStatsMatcher": {"inclusionRegexps": [_HANDSHAKES]}},  # it counts little else by itself
    },
}


def istiod_values() -> dict[str, Any]:
    """Return the values of istiod's chart, without what says that a CNI plugin redirects pods."""
    return _VALUES | {"pilot": {name: value for name, value in _VALUES["pilot"].items() if name != "cni"}}


_STRICT = {
    "apiVersion": "security.istio.io/v1",
    "kind": "PeerAuthentication",
    "metadata": {"name": "default", "namespace": SYSTEM},
    "spec": {"mtls": {"mode": "STRICT"}},
}


class Mesh:
    """Istio on two nodes, STRICT everywhere, and a namespace under Pod Security `restricted` whose pods are injected."""

    def __init__(self, cluster: TwoNodes, home: Path) -> None:
        """Prepare.

        Args:
            cluster: where it is to be; its nodes have the images.
            home: a folder for what helm keeps for itself.
        """
        self.cluster, self.node = cluster, cluster.first
        self._helm = Helm(KUBE.folder / "helm", cluster.first, home, SYSTEM)

    def install(self) -> None:
        """Install DNS and Istio, and wait until both are ready."""
        self.node.apply(*coredns.objects())
        self.install_istiod()
        self.node.wait("condition=Available", "deployment/coredns", f"--namespace={coredns.NAMESPACE}", within=SLOWEST)
        injected = [workloads.namespace(MESHED), workloads.namespace(PRIVILEGED, level="privileged")]
        for each in injected:
            each["metadata"]["labels"]["istio-injection"] = "enabled"
        self.node.apply(_STRICT, *injected, workloads.namespace(PLAIN))

    def install_istiod(self) -> None:
        """Install what Istio's charts have, and wait until it is ready."""
        self._helm("upgrade", "--install", "--create-namespace", "istio-base", str(_CHARTS / "base"))
        self._helm("upgrade", "--install", "istiod", _ISTIOD, "--values=-", values=_VALUES)
        self.node.wait("condition=Available", "deployment/istiod", f"--namespace={SYSTEM}", within=SLOWEST)

    def uninstall_istiod(self) -> None:
        """Uninstall istiod; resources and the root of trust stay."""
        self._helm("uninstall", "istiod", "--wait")

    def injects(self, who: str) -> None:
        """Wait until istiod takes up that it is to inject `INIT`, or `VALIDATION`."""
        self.node.rolled_out("deployment/istiod", SYSTEM, SLOWEST)
        asked = ("run", "asked", "--image=none", "--dry-run=server", f"--namespace={PRIVILEGED}", "--output=json")
        until(lambda: f'"name": "{who}"' in self.node.kubectl(*asked, check=False), SLOWEST, f"pods would get {who}")

    def restart(self, name: str, *, where: str) -> None:
        """Replace the pods of a Deployment, and wait until the new ones are there and the old ones gone."""
        with self.replaced(name, where=where):
            self.node.kubectl("rollout", "restart", f"deployment/{name}", f"--namespace={where}")

    @contextmanager
    def replaced(self, *names: str, where: str) -> Iterator[None]:
        """Wait, after a block that restarts Deployments, until their new pods are there and the old ones gone."""
        selector = f"--selector=app in ({','.join(names)})"
        before = self.node.kubectl("get", "pods", f"--namespace={where}", selector, "--output=name")
        yield
        for name in names:
            self.node.rolled_out(f"deployment/{name}", where, SLOWEST)
        gone = ("wait", "--for=delete", *before.split(), f"--namespace={where}", f"--timeout={SLOWEST:.0f}s")
        self.node.kubectl(*gone, within=SLOWEST + 10)

    def start(
        self,
        name: str,
        on: Worker,
        *,
        kind: str = "Deployment",
        where: str = MESHED,
        annotations: dict[str, str] | None = None,
        **spec: Any,
    ) -> dict[str, Any]:
        """Deploy an application, wait until it is there, and return its pod; arguments are those of `deploy`."""
        self.deploy(name, on, kind=kind, where=where, annotations=annotations, **spec)
        return self.ready(name, kind=kind, where=where)

    def deploy(
        self,
        name: str,
        on: Worker,
        *,
        kind: str = "Deployment",
        where: str = MESHED,
        annotations: dict[str, str] | None = None,
        **spec: Any,
    ) -> None:
        """Deploy an application with its Service onto a node.

        Args:
            name: its name.
            on: the node.
            kind: Deployment or StatefulSet.
            where: the namespace.
            annotations: of its pod.
            spec: what else is in its pod's specification.
        """
        made = workloads.deployment(name, where, injected=False) | {"kind": kind}
        template = made["spec"]["template"]
        template["metadata"]["annotations"] |= annotations or {}
        template["spec"] |= {"nodeSelector": {"kubernetes.io/hostname": on.place.name}} | spec
        self.node.apply(made, workloads.service(name, where))

    def ready(self, name: str, *, kind: str = "Deployment", where: str = MESHED) -> dict[str, Any]:
        """Wait until an application is there, and return its pod."""
        _log.info("%s/%s: waiting until it is rolled out, for at most %.0f s", where, name, SLOWEST)
        self.node.rolled_out(f"{kind.lower()}/{name}", where, SLOWEST)
        return self.pod(name, where)

    def pod(self, name: str, where: str = MESHED) -> dict[str, Any]:
        """Return the pod of an application."""
        pods = self.node.read("pods", where, app=name)["items"]
        (pod,) = [each for each in pods if "deletionTimestamp" not in each["metadata"]]
        found: dict[str, Any] = pod
        return found

    def service(self, name: str, where: str = MESHED) -> str:
        """Say where an application's Service answers."""
        return f"http://{self.node.read(f'service/{name}', where)['spec']['clusterIP']}"

    def ask(self, name: str, url: str, *, kind: str = "deployment", where: str = MESHED, container: str = "app") -> str:
        """Have an application, or the container beside it, ask a URL, and return the answer."""
        told = ("exec", f"{kind}/{name}", f"--namespace={where}", f"--container={container}", "--", "/get", url)
        return self.node.kubectl(*told).strip()

    def asking(self, name: str, url: str, *, where: str = MESHED) -> list[str]:
        """Return the command that has an application ask a URL until its stdin ends."""
        told = (
            "--stdin",
            f"deployment/{name}",
            f"--namespace={where}",
            "--container=app",
            "--",
            "/get",
            "--repeat",
            url,
        )
        return self.node.kubectl_command("exec", *told)

    def ask_from(self, node: Worker, url: str) -> str:
        """Ask a URL from a node."""
        return node.run([str(compiled("get")), url]).strip()

    def log(self, name: str, container: str) -> str:
        """Return what a container of an application has logged."""
        return self.node.kubectl("logs", f"deployment/{name}", f"--namespace={MESHED}", f"--container={container}")

    def handshakes(self, name: str) -> int:
        """Count the TLS handshakes that an application's sidecar has accepted for it."""
        asked = f"stats?filter={_HANDSHAKES}"
        told = ("exec", f"deployment/{name}", f"--namespace={MESHED}", "--container=istio-proxy", "--")
        found = re.findall(
            r"^listener\..*: (\d+)$", self.node.kubectl(*told, "pilot-agent", "request", "GET", asked), re.MULTILINE
        )
        return sum(map(int, found))

    def stop(self, *names: str, kind: str = "Deployment", where: str = MESHED) -> None:
        """Take applications away, and wait until their pods are gone."""
        what = [f"{each}/{name}" for name in names for each in ("Service", kind)]
        self.node.kubectl("delete", *what, f"--namespace={where}", "--cascade=foreground")

    def finish(self, name: str, on: Worker, url: str, *, kind: str = "Job") -> str:
        """Run an application once that asks a URL, as a Job or as what a CronJob makes one of, and return the answer."""
        asking = workloads.deployment(name, MESHED, injected=False)["spec"]["template"]
        asking["spec"] |= {"restartPolicy": "Never", "nodeSelector": {"kubernetes.io/hostname": on.place.name}}
        asking["spec"]["containers"][0] |= {"command": ["/get", url], **workloads.UNPROBED}
        job = {"backoffLimit": 0, "template": asking}
        spec = job if kind == "Job" else {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": job}}
        self.node.apply(
            {"apiVersion": "batch/v1", "kind": kind, "metadata": {"name": name, "namespace": MESHED}, "spec": spec}
        )
        if kind == "CronJob":
            self.node.kubectl("create", "job", name, f"--from=cronjob/{name}", f"--namespace={MESHED}")
        self.node.wait("condition=Complete", f"job/{name}", f"--namespace={MESHED}", within=SLOWEST)
        answer = self.node.kubectl("logs", f"job/{name}", f"--namespace={MESHED}", "--container=app").strip()
        self.node.kubectl("delete", f"{kind}/{name}", f"--namespace={MESHED}", "--cascade=foreground")
        return answer

    def istioctl(self, *arguments: str) -> str:
        """Run istioctl as the admin, and return what it says; it must succeed."""
        return self.node.run([str(ISTIO.folder / "istioctl"), f"--kubeconfig={self.node.kubeconfig}", *arguments])

    def inside(self, on: Worker, pod: dict[str, Any], command: Sequence[str]) -> str:
        """Run a command of the node's in the network namespace of a pod, as a user that is nobody of the mesh's."""
        return on.run([*self.entering(on, pod), *command])

    def entering(self, on: Worker, pod: dict[str, Any]) -> list[str]:
        """Say what to put before a command on the node so that it runs as `inside` has it."""
        names = [line.split()[0] for line in on.run([_IP, "netns", "list"]).splitlines()]
        own = next(name for name in names if f" {pod['status']['podIP']}/" in on.run([_IP, "-n", name, "-o", "addr"]))
        return [NSENTER, f"--net=/run/netns/{own}", "--", "/usr/bin/setpriv", "--reuid=1000"]

"""Applications in a namespace under Pod Security `restricted`, and the ways by which their traffic goes."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tests.e2e.workloads import PORT, STATUS, deployment, service
from tests.support.images import compiled
from tests.support.wait import until

if TYPE_CHECKING:
    from tests.support.node import KubernetesNode

SHOP = "shop"
SLOWEST = 240.0  # seconds that pods may take to end
ENVOY = "127.0.0.6"  # from where Envoy connects to the application

_GET = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=30).read().decode())"


def started(node: KubernetesNode, name: str, *, injected: bool) -> dict[str, Any]:
    """Deploy an application with its Service, wait until it is available, and return its pod."""
    node.apply(deployment(name, SHOP, injected=injected), service(name, SHOP))
    node.wait("condition=Available", f"deployment/{name}", f"--namespace={SHOP}")
    (pod,) = node.read("pods", SHOP, app=name)["items"]
    found: dict[str, Any] = pod
    return found


def removed(node: KubernetesNode, *names: str) -> None:
    """Take applications away, and wait until their pods are gone."""
    what = [f"{kind}/{name}" for name in names for kind in ("service", "deployment")]
    node.kubectl("delete", *what, f"--namespace={SHOP}", "--cascade=foreground", within=SLOWEST)


def url(pod: dict[str, Any]) -> str:
    """Say where a pod's application answers: its name, and the address from which it was asked."""
    return f"http://{pod['status']['podIP']}:{PORT}"


def service_url(node: KubernetesNode, name: str) -> str:
    """Say where an application's Service answers, once it does: kube-proxy hears of a pod after it is available."""
    address = f"http://{node.read(f'service/{name}', SHOP)['spec']['clusterIP']}"

    def answers() -> bool:
        with suppress(AssertionError):
            return bool(from_node(node, address))
        return False

    until(answers, 30, f"the Service {name} answers on {address}")
    return address


def from_node(node: KubernetesNode, address: str) -> str:
    """Ask an application from the node."""
    return node.run([str(compiled("get")), address]).strip()


def from_pod(node: KubernetesNode, name: str, address: str) -> str:
    """Ask an application from a pod of another one."""
    where = (f"--namespace={SHOP}", f"deployment/{name}", "--container=app")
    return node.kubectl("exec", *where, "--", "/get", address).strip()


def connections(node: KubernetesNode, pod: dict[str, Any]) -> dict[str, int]:
    """Count the connections that a pod's Envoy has accepted, by listener."""
    asked = f"http://{pod['status']['podIP']}:{STATUS}/stats?filter=^listener.*bound.downstream_cx_total$"
    told = node.run([sys.executable, "-I", "-c", _GET, asked])
    return {kind: int(number) for kind, number in re.findall(r"^listener\.(\w+)\..*: (\d+)$", told, re.MULTILINE)}

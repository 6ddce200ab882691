"""Istio's own agent, its real program by its own chart, replaced in place by this chart under traffic, and brought back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest

from tests.chart.helm import CHART as OURS
from tests.chart.istio_chart import CHART as ISTIOS
from tests.e2e.helm import Helm
from tests.e2e.istio.images import netfilter
from tests.e2e.release import VALUES
from tests.e2e.shop import ENVOY, SHOP, from_node, removed, started, url
from tests.e2e.test_chart import SOCKETS, all_files
from tests.e2e.test_istio_chart import AGENTS, NAMESPACE, rolled_out
from tests.e2e.workloads import PORT, deployment, service
from tests.image.build import archive
from tests.programs.build import is_built
from tests.programs.lots import ISTIO, KUBE
from tests.support.images import Image, write
from tests.support.machine import ENVIRONMENT
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.node import KubernetesNode

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

IMAGE = {"hub": "tests.local", "image": "istio-install-cni", "tag": "1", "pullPolicy": "Never"}
THEIRS = IMAGE | {"resources": {"requests": {"cpu": "10m"}}, "logging": {"level": "info"}}
ALIKE = {"excludeNamespaces": ["kube-system"], "inboundPortsDefault": "*"}

# Connects, says so, and sends a request whose head ends when it is told to: until then a byte each second.
_HELD = """
import select, socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) as held:
    held.settimeout(90)
    held.sendall(b"GET / HTTP/1.1\\r\\nHost: held\\r\\nLong: ")
    print("open", flush=True)
    while not select.select([sys.stdin], [], [], 1)[0]:
        held.sendall(b".")
    held.sendall(b"\\r\\n\\r\\n")
    got = b""
    while part := held.recv(4096):
        got += part
print(got.decode().splitlines()[-1])
"""


def istios_image() -> Image:
    """Say what the image of Istio's agent holds: both of its programs, and those that they run."""
    files = netfilter() | {
        "usr/local/bin/install-cni": ISTIO.folder / "install-cni",
        "opt/cni/bin/istio-cni": ISTIO.folder / "istio-cni",
    }
    name = f"{IMAGE['hub']}/{IMAGE['image']}:{IMAGE['tag']}"
    return Image(name, files, ("/usr/local/bin/install-cni",), "", ("PATH=/usr/local/bin:/usr/sbin:/usr/bin",))


@pytest.fixture
def helm(node: KubernetesNode, tmp_path: Path) -> Iterator[Helm]:
    """Helm for one release of the name that both charts use; it is taken away in the end."""
    assert is_built(ISTIO), f"no {ISTIO.title} in {ISTIO.folder}; `make istio` builds it"
    node.import_images(archive())
    tar = write(tmp_path / "istio.tar", [istios_image()])
    node.import_images(tar)
    tar.unlink()
    node.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    made = Helm(KUBE.folder / "helm", node, tmp_path, NAMESPACE)
    yield made
    made("uninstall", "istio-cni", "--ignore-not-found", "--wait")


@contextmanager
def held(node: KubernetesNode, address: str) -> Iterator[Callable[[], str]]:
    """Open a connection from the node to a pod, and use it; yield what ends its request and returns the answer."""
    command = [*node.enter, sys.executable, "-I", "-c", _HELD, address, str(PORT)]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        try:
            assert running.stdout
            assert running.stdout.readline() == "open\n"

            def ask() -> str:
                return running.communicate("ask\n", timeout=180)[0].strip()

            yield ask
        finally:
            running.kill()


def asked_until(done: Event, node: KubernetesNode, address: str) -> Counter[str]:
    """Ask from the node, one request after the other, and count the answers; one that is lost ends it."""
    answers = Counter[str]()
    while not done.is_set():
        answers[from_node(node, address)] += 1
    return answers


def all_in_the_mesh(node: KubernetesNode, names: list[str]) -> None:
    """Wait until each application is available, and answers through its sidecar."""
    for name in names:
        address = url(started(node, name, injected=True))
        until(partial(_is_meshed, node, name, address), 30, f"{name} is in the mesh")


def _is_meshed(node: KubernetesNode, name: str, address: str) -> bool:
    with suppress(AssertionError):  # while it is repaired
        return from_node(node, address) == f"{name} {ENVOY}"
    return False


def meaning(node: KubernetesNode) -> dict[str, Any]:
    """Read all files of the plugin's folders; of a conflist its value, as Istio's own agent writes its keys in order."""
    return {
        f"{folder}/{name}": (mode, json.loads(content) if name.endswith(".conflist") else content)
        for folder, files in all_files(node).items()
        for name, (mode, content) in files.items()
    }


def is_rolled_out(node: KubernetesNode) -> bool:
    told = ("rollout", "status", "daemonset/istio-cni-node", f"--namespace={NAMESPACE}", "--watch=false")
    return "successfully rolled out" in node.kubectl(*told)


def test_istios_agent_is_replaced_in_place_and_brought_back_under_traffic(node: KubernetesNode, helm: Helm) -> None:
    before = meaning(node)
    helm("install", "istio-cni", str(ISTIOS), "--values=-", values=THEIRS)
    rolled_out(node)
    until(lambda: node.plugins_loaded()[-1] == "istio-cni", 30, "the runtime has loaded Istio's entry")
    all_in_the_mesh(node, ["early", "talks"])  # by Istio's own agent
    early, talks = (started(node, name, injected=True) for name in ("early", "talks"))

    young, done = list[str](), Event()

    def change(*arguments: str, values: dict[str, Any] | None = None) -> None:
        helm(*arguments, values=values)
        while True:
            name = f"young{len(young)}"
            node.apply(deployment(name, SHOP, injected=True), service(name, SHOP))
            young.append(name)
            if is_rolled_out(node):
                return

    with ThreadPoolExecutor() as pool, held(node, talks["status"]["podIP"]) as ask:
        answers = pool.submit(asked_until, done, node, url(early))
        try:
            values = {"cni": VALUES["cni"] | ALIKE}
            change("upgrade", "istio-cni", str(OURS), "--reset-values", "--values=-", values=values)
            agents = node.kubectl("get", "pods", *AGENTS, "--output=jsonpath={.items[*].spec.containers[*].image}")
            assert "istio-install-cni" not in agents
            all_in_the_mesh(node, young)
            change("rollback", "istio-cni")
            until(lambda: node.plugins_loaded()[-1] == "istio-cni", 30, "the runtime has Istio's entry again")
        finally:
            done.set()
        assert {*answers.result()} == {f"early {ENVOY}"}
        assert ask() == f"talks {ENVOY}"
    all_in_the_mesh(node, young)

    helm("uninstall", "istio-cni", "--wait")
    node.kubectl("wait", "--for=delete", "pod", *AGENTS, "--timeout=240s", within=250)
    removed(node, "early", "talks", *young)
    assert meaning(node) == before
    left = {each.name for each in node.seen(SOCKETS).iterdir()}
    # Istio's agent, which ends last, knows nothing of our files; with a resource, as of earlier tests, the checkpoint stays.
    steered = node.kubectl("get", "istiocontrolplanes", "--all-namespaces", "--output=name", check=False)
    assert left <= {"istio-cni.log", *(["checkpoint.json"] if steered.startswith("istiocontrolplane.") else [])}

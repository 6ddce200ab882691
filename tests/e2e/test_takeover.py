"""Istio's own agent, its real program by its own chart, replaced in place by this chart under traffic, and brought back."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING

import pytest

from tests.chart.istio_chart import CHART
from tests.docs.istio_page import Shell, commands
from tests.e2e.helm import Helm
from tests.e2e.istios_agent import (
    AGENTS,
    NAMESPACE,
    VALUES,
    agents_hub,
    all_in_the_mesh,
    meaning,
    prepare,
    rolled_out,
)
from tests.e2e.shop import ENVOY, SHOP, from_node, removed, started, url
from tests.e2e.test_chart import SOCKETS
from tests.e2e.workloads import PORT, deployment, service
from tests.image.build import HUB
from tests.programs.lots import KUBE
from tests.support.machine import ENVIRONMENT
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.node import KubernetesNode

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

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


@pytest.fixture
def shell(node: KubernetesNode, tmp_path: Path) -> Iterator[Shell]:
    """A shell on the node; in the end there is no release of the name that both charts use."""
    prepare(node, tmp_path)
    made = Shell(tmp_path, node.kubeconfig, enter=node.enter)
    yield made
    made(f"helm uninstall istio-cni --namespace {NAMESPACE} --ignore-not-found --wait")


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


def is_rolled_out(node: KubernetesNode) -> bool:
    told = ("rollout", "status", "daemonset/istio-cni-node", f"--namespace={NAMESPACE}", "--watch=false")
    return "successfully rolled out" in node.kubectl(*told)


def test_istios_agent_is_replaced_in_place_and_brought_back_under_traffic(node: KubernetesNode, shell: Shell) -> None:
    before = meaning(node)
    helm = Helm(KUBE.folder / "helm", node, shell.folder, NAMESPACE)
    helm("install", "istio-cni", str(CHART), "--values=-", values=VALUES)
    rolled_out(node)
    until(lambda: node.plugins_loaded()[-1] == "istio-cni", 30, "the runtime has loaded Istio's entry")
    all_in_the_mesh(node, ["early", "talks"])  # by Istio's own agent
    early, talks = (started(node, name, injected=True) for name in ("early", "talks"))

    young, done = list[str](), Event()
    with ThreadPoolExecutor() as pool, held(node, talks["status"]["podIP"]) as ask:

        def change(block: list[str]) -> None:
            """Run commands while pods start, and go on until the agent is another one."""
            changing = pool.submit(lambda: [shell(command) for command in block])
            while not (changing.done() and is_rolled_out(node)):
                name = f"young{len(young)}"
                node.apply(deployment(name, SHOP, injected=True), service(name, SHOP))
                node.wait("condition=Available", f"deployment/{name}", f"--namespace={SHOP}", within=240)
                young.append(name)
            changing.result()

        answers = pool.submit(asked_until, done, node, url(early))
        try:
            change(commands("From Istio's own CNI", "helm upgrade istio-cni"))
            assert agents_hub(node) == HUB
            all_in_the_mesh(node, young)
            change(commands("Back again", "helm rollback"))
            assert agents_hub(node) == VALUES["hub"]
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

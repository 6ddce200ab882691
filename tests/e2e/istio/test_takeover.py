"""From Istio's own agent, its real program, to this one and back, and this one in Istio's own chart: the page's commands.

While an agent takes the other's place on two nodes, requests go from node to node under STRICT mutual TLS, a connection is
held, and pods start on both nodes.
"""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from installer.version import RELEASE
from tests.chart.istio_chart import CHART
from tests.docs.istio_page import commands, without_settings
from tests.e2e import workloads
from tests.e2e.helm import Helm
from tests.e2e.istio.istios_agent import (
    AGENTS,
    VALUES,
    agents_hub,
    gone,
    is_rolled_out,
    left_in_run,
    meaning,
    rolled_out,
)
from tests.e2e.istio.mesh import MESHED, PLAIN, SYSTEM, VALIDATION, istiod_values
from tests.e2e.istio.test_mesh import refused
from tests.e2e.shop import ENVOY, url
from tests.e2e.test_chart import all_files
from tests.e2e.traffic import held, traffic
from tests.image.build import HUB
from tests.programs.lots import KUBE
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.docs.istio_page import Shell
    from tests.e2e.istio.mesh import Mesh

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

# What a runtime may be told of an ADD that it then repeats: Istio's agent takes plugin and kubeconfig away while an ADD
# needs them, and brings the kubeconfig milliseconds after the plugin; on a busy machine a plugin of ours gives up before it
# comes. A kubeconfig without its folder would be that of a plugin of Istio's that does not understand our entry (D9).
REPEATED = re.compile(r"failed to find plugin|stat /var/run/istio-cni/istio-cni-kubeconfig:|agent did not answer")
UNREDIRECTED = '"exitCode": 126'  # of istio-validation


class Changes:
    """Changes of the agents while pods start on both nodes."""

    def __init__(self, mesh: Mesh, shell: Shell) -> None:
        self._mesh, self._shell = mesh, shell
        self.young: list[str] = []  # the applications that have started meanwhile

    def run(self, block: Sequence[str]) -> None:
        """Run commands, and wait until all agents are others; the first pods start before that, the last after."""
        with ThreadPoolExecutor(1) as pool:
            changing = pool.submit(lambda: [self._shell(command) for command in block])
            while not (changing.done() and (changing.exception() or is_rolled_out(self._mesh.node))):
                self.start_pods()
            changing.result()

    def start_pods(self) -> None:
        """Start an application on each node."""
        new = {f"young{len(self.young) + number}": node for number, node in enumerate(self._mesh.cluster.nodes)}
        for name, node in new.items():
            self._mesh.deploy(name, node)
        self.young += new
        for name in new:
            self._mesh.ready(name)


@contextmanager
def changing(mesh: Mesh, shell: Shell) -> Iterator[Changes]:
    """Have agents change within the block, and see that no request, no connection and no pod is lost for it."""
    first, second = mesh.cluster.nodes
    client = mesh.start("client", first)
    mesh.start("server", second)
    mesh.start("talks", second, containers=[without_probe("talks")])  # it serves one connection at a time
    mesh.start("outside", first, where=PLAIN)
    target, talks, changes = mesh.service("server"), mesh.service("talks"), Changes(mesh, shell)
    assert mesh.ask("client", talks) == f"talks {ENVOY}"
    with held([*first.enter, *mesh.entering(first, client)], talks.removeprefix("http://")) as ask:
        with traffic(mesh.asking("client", target), f"server {ENVOY}"):
            yield changes
            changes.start_pods()
        assert ask() == f"talks {ENVOY}"
    for name in changes.young:
        assert mesh.ask(name, target) == f"server {ENVOY}"
        assert refused(mesh.ask, "outside", url(mesh.pod(name)), where=PLAIN)
    assert [told for told in failed_adds(mesh, changes.young) if not REPEATED.search(told)] == []
    mesh.stop("client", "server", "talks", *changes.young)
    mesh.stop("outside", where=PLAIN)


def without_probe(name: str) -> dict[str, Any]:
    """Make an application's container that nobody probes."""
    (container,) = workloads.deployment(name, MESHED, injected=False)["spec"]["template"]["spec"]["containers"]
    made: dict[str, Any] = container | workloads.UNPROBED
    return made


def failed_adds(mesh: Mesh, names: Sequence[str]) -> list[str]:
    """Return what Events say of pods of these applications whose network could not be set up at first."""
    pods = {mesh.pod(name)["metadata"]["uid"] for name in names}
    failed = [each for each in mesh.node.read("events", MESHED)["items"] if each["reason"] == "FailedCreatePodSandBox"]
    return [each["message"] for each in failed if each["involvedObject"]["uid"] in pods]


def both_ask(mesh: Mesh, one: str, other: str) -> None:
    """See that each of two applications answers the other through both sidecars."""
    for client, server in ((one, other), (other, one)):
        assert mesh.ask(client, mesh.service(server)) == f"{server} {ENVOY}"


@pytest.fixture
def istioctls(no_agent: Mesh, shell: Shell) -> Iterator[Mesh]:
    """A mesh whose istiod istioctl has installed; what it is given next has Istio's own agent, too."""
    mesh = no_agent
    mesh.uninstall_istiod()
    write_file(shell, "pilot")
    for command in commands("Set up", "istioctl install"):
        shell(command)
    mesh.injects(VALIDATION)
    write_file(shell, "pilot", "cni")
    yield mesh
    shell("istioctl uninstall --purge --skip-confirmation")
    mesh.install_istiod()
    mesh.injects(VALIDATION)


def write_file(shell: Shell, *components: str) -> None:
    """Write the IstioOperator that the page calls FILE."""
    spec = {
        "profile": "empty",
        "components": {each: {"enabled": True} for each in components},
        "values": {"cni": VALUES},
        "unvalidatedValues": istiod_values(),
    }
    file = {"apiVersion": "install.istio.io/v1alpha1", "kind": "IstioOperator", "spec": spec}
    (shell.folder / "FILE").write_text(json.dumps(file))


def test_with_nothing_but_the_image_ours_pods_are_redirected(no_agent: Mesh, shell: Shell) -> None:
    mesh, (first, second) = no_agent, no_agent.cluster.nodes
    before = [all_files(node) for node in (first, second)]
    mesh.deploy("early", second)
    until(
        lambda: UNREDIRECTED in json.dumps(mesh.node.read("pods", MESHED, app="early")),
        60,
        "istio-validation fails, as no agent is there",
    )
    for command in commands("Istio's own chart with this image", "helm upgrade"):
        shell(command)
    rolled_out(mesh.cluster)
    assert agents_hub(mesh.node) == HUB
    mesh.start("young", first)
    mesh.ready("early")  # repaired through /proc
    both_ask(mesh, "early", "young")

    mesh.node.kubectl("rollout", "restart", "daemonset/istio-cni-node", f"--namespace={SYSTEM}")
    rolled_out(mesh.cluster)  # a new agent's own pod has passed the plugin while no agent was there
    mesh.start("late", second)
    both_ask(mesh, "late", "young")

    shell(f"helm uninstall istio-cni --namespace {SYSTEM}")
    gone(mesh.node)
    mesh.stop("early", "young", "late")
    assert [all_files(node) for node in (first, second)] == before
    assert [left_in_run(node) for node in (first, second)] == [set(), set()]


def test_ambient_mode_is_refused_in_the_containers_log(no_agent: Mesh, shell: Shell) -> None:
    node = no_agent.node
    helm = Helm(KUBE.folder / "helm", node, shell.folder, SYSTEM)
    values = VALUES | {"hub": HUB, "tag": RELEASE, "ambient": {"enabled": True}}
    helm("install", "istio-cni", str(CHART), "--values=-", values=values)
    logs = ("logs", *AGENTS)
    until(lambda: "this agent supports sidecar mode only" in node.kubectl(*logs, check=False), 60, "its log says so")
    assert "istio-cni" not in [each.plugins_loaded()[-1] for each in no_agent.cluster.nodes]


def test_a_release_of_istios_chart_is_replaced_in_place_and_brought_back(no_agent: Mesh, shell: Shell) -> None:
    mesh, nodes = no_agent, no_agent.cluster.nodes
    before = [meaning(node) for node in nodes]
    helm = Helm(KUBE.folder / "helm", mesh.node, shell.folder, SYSTEM)
    helm("install", "istio-cni", str(CHART), "--values=-", values=VALUES)
    rolled_out(mesh.cluster)
    with changing(mesh, shell) as changes:
        changes.run(commands("From Istio's own CNI", "helm upgrade istio-cni"))
        assert agents_hub(mesh.node) == HUB
        changes.run(commands("Back again", "helm rollback"))
        assert agents_hub(mesh.node) == VALUES["hub"]
    helm("uninstall", "istio-cni", "--wait")
    gone(mesh.node)
    assert [meaning(node) for node in nodes] == before
    # The IstioControlPlane of these tests was in force, and Istio's agent, which ends last, does not know that file.
    assert [left_in_run(node) for node in nodes] == [{"checkpoint.json"}] * 2


def test_istioctls_agent_is_replaced_and_brought_back_also_from_this_image_in_its_own_chart(
    istioctls: Mesh, shell: Shell
) -> None:
    mesh, nodes = istioctls, istioctls.cluster.nodes
    before = [meaning(node) for node in nodes]
    uninstall, install = commands("Back again", "istioctl install")
    shell(install)
    rolled_out(mesh.cluster)
    with changing(mesh, shell) as changes:
        *_, printed = [shell(command) for command in commands("From Istio's own CNI", "install-cni takeover")]
        replace = commands("From Istio's own CNI", "istioctl install")
        assert [*map(without_settings, printed.splitlines())] == [*map(without_settings, replace)][:-1]
        changes.run(replace)
        assert agents_hub(mesh.node) == HUB
        changes.run((uninstall, install))
        assert agents_hub(mesh.node) == VALUES["hub"]
        changes.run(commands("Istio's own chart with this image", "istioctl install"))
        assert agents_hub(mesh.node) == HUB
        changes.run((install,))
        assert agents_hub(mesh.node) == VALUES["hub"]
    shell("istioctl uninstall --purge --skip-confirmation")
    gone(mesh.node)
    assert [meaning(node) for node in nodes] == before
    assert [left_in_run(node) for node in nodes] == [set(), set()]

"""Pods that run before the plugin is installed: redirected while they run, or handled as repairMode says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support import envoy
from tests.support.conflict import undone
from tests.support.mesh import Mesh, rules, serve
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.cri import Pod

pytestmark = pytest.mark.containerd

# What istio-init, or another agent's plugin, leaves in a pod.
OF_ANOTHER = """*nat
:ISTIO_REDIRECT - [0:0]
:ISTIO_OUTPUT - [0:0]
-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -j ISTIO_REDIRECT
-A OUTPUT -p tcp -j ISTIO_OUTPUT
COMMIT
"""
SOON = 10.0


@pytest.fixture
def early(mesh: Mesh) -> Iterator[Pod]:
    """A meshed pod that was started without a redirect."""
    pod = mesh.create("early", injected=True)
    assert rules(pod) == ""
    yield pod
    mesh.agent.stop()
    assert mesh.agent.uninstall().returncode == 0
    mesh.agent.log.unlink()
    pod.remove()


def said(mesh: Mesh) -> dict[str, str]:
    """What the agent has logged about running pods: the reason by the outcome."""
    lines = [json.loads(line) for line in mesh.agent.log.read_text().splitlines()]
    found = [line for line in lines if line["msg"].startswith("a running pod had no redirect: ")]
    return {line["msg"].rpartition(" ")[2]: f"{line['pod']}: {line['reason']}" for line in found}


def started(mesh: Mesh, mode: str) -> None:
    """Start the agent, with a repair mode."""
    mesh.agent.set("repair-mode", mode)
    mesh.agent.start()
    mesh.agent.ready()


def test_a_running_pod_is_redirected(mesh: Mesh, early: Pod) -> None:  # F1, F2, F18
    serve(early)
    envoy.start(early)
    assert mesh.get(early).startswith("app 10.244.")
    started(mesh, "redirect")
    until(lambda: rules(early), SOON, "the pod has rules")
    until(lambda: "Redirected" in said(mesh), SOON, "the log says so")
    for family, pass_through in enumerate(("127.0.0.6", "::6")):
        assert mesh.get(early, family) == f"app {pass_through}"
    assert 'istio_cni_running_pods_without_redirect_total{outcome="Redirected"} 1.0' in mesh.agent.get("/metrics")[1]


@pytest.mark.parametrize(
    ("mode", "why"),
    [("report", "; delete it so that its controller recreates it"), ("delete", "the agent has no cluster")],
)
def test_a_running_pod_is_only_reported_if_the_mode_says_so(mesh: Mesh, early: Pod, mode: str, why: str) -> None:
    started(mesh, mode)
    until(lambda: "NotRedirected" in said(mesh), SOON, "the log names the pod")
    assert said(mesh)["NotRedirected"].startswith(
        "early: it runs without its redirect: its network k8s was set up without"
    )
    assert said(mesh)["NotRedirected"].endswith(why)
    assert rules(early) == ""


@pytest.mark.parametrize("variant", ["iptables-nft", "iptables-legacy"])
def test_an_existing_redirect_is_not_duplicated(mesh: Mesh, early: Pod, variant: str) -> None:
    early.inside([f"/usr/sbin/{variant}-restore", "--noflush"], stdin=OF_ANOTHER)
    before = rules(early)
    late = mesh.create("late", injected=True)  # without rules: once it has some, the other pod was inspected
    started(mesh, "redirect")
    until(lambda: "redirect to :15001" in rules(late), SOON, "the pod without rules has some")
    until(lambda: "Redirected" in said(mesh), SOON, "the log says so")
    assert rules(early) == before
    assert said(mesh)["Redirected"].startswith("late: ")
    late.remove()


def test_other_pods_are_left_unchanged(mesh: Mesh, early: Pod) -> None:
    plain, excluded = mesh.create("plain", injected=False), mesh.create("excluded", "istio-system", injected=True)
    started(mesh, "redirect")
    until(lambda: rules(early), SOON, "the pod of the mesh has rules")
    until(lambda: len(said(mesh)) == 1, SOON, "the log says so")
    later = mesh.create("later", injected=True)  # by the plugin itself
    assert "redirect to :15001" in rules(later)
    for pod in (plain, excluded):
        assert rules(pod) == ""
    assert len(said(mesh)) == 1
    for pod in (plain, excluded, later):
        pod.remove()


def test_a_pod_started_during_a_conflict_is_redirected_while_it_runs(mesh: Mesh, early: Pod) -> None:  # F9
    conflist = mesh.node.conf_dir / "10-k8s.conflist"
    started(mesh, "redirect")
    until(lambda: rules(early), SOON, "the pod of before has rules")
    with undone(conflist, mesh.node.write_primary):
        until(lambda: "istio_cni_conflict 1.0" in mesh.agent.get("/metrics")[1], SOON, "they conflict")
        slipped = mesh.create("slipped", injected=True)
        until(lambda: "redirect to :15001" in rules(slipped), SOON, "it has rules")
        until(lambda: "slipped" in said(mesh).get("Redirected", ""), SOON, "the log says so")
    slipped.remove()

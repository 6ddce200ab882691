"""What people are told is true where it is told, and what they are told to do can be done: no command lacks a part."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from installer.status.changes import changes
from installer.status.glance import glance
from installer.status.model import Answers, Weight
from tests.status.objects import NAMES, answers, controller, node, plane, pod, report

if TYPE_CHECKING:
    from installer.status.model import Finding, Glance

PODS = [pod(each) for each in NAMES]
NODES = [node(each) for each in NAMES]


def wrong(found: Glance) -> list[Finding]:
    return [each for each in found.findings if each.weight is Weight.WRONG]


def test_a_controller_that_does_not_run_is_looked_up_by_its_pods() -> None:
    (only,) = wrong(glance(answers(controllers=[controller(0)])))
    assert only.remedy.endswith(
        "kubectl --namespace istio-system describe pods --selector k8s-app=istio-cni-controller"
    )


def test_a_chart_is_installed_into_a_namespace_that_may_be_missing() -> None:
    (only,) = glance(Answers(nodes=NODES)).findings
    assert only.remedy.endswith("helm install istio-cni charts/istio-cni --namespace istio-system --create-namespace")


@pytest.mark.parametrize(
    ("done", "total", "said"),
    [(0, 1, "0 of 1 nodes are done"), (1, 3, "1 of 3 nodes is done"), (2, 3, "2 of 3 nodes are done")],
)
def test_how_many_nodes_are_done_is_a_sentence(done: int, total: int, said: str) -> None:
    names = NAMES[:total]
    reports = [report(each, settings=("istio", 3 if at < done else 2)) for at, each in enumerate(names)]
    found = glance(answers(planes=[plane(generation=3)], nodes=NODES[:total], pods=PODS[:total], reports=reports))
    assert found.summary == f"Updating: {said}."


def test_a_pipe_is_told_why_a_control_plane_is_not_healthy() -> None:
    ill = glance(answers(planes=[plane(status="ERROR", said={"error": "spec.x: wrong"})]))
    assert "istio-system/istio: ERROR, generation 2: spec.x: wrong" in changes(None, ill)
    moving = glance(answers(planes=[plane(status="UPDATING", said={"statusString": "1 of 3 nodes has it"})]))
    assert "istio-system/istio: UPDATING, generation 2: 1 of 3 nodes has it" in changes(None, moving)
    well = glance(answers(planes=[plane(said={"statusString": "all is well"})]))
    assert "istio-system/istio: HEALTHY, generation 2" in changes(None, well)

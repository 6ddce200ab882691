"""The real DaemonSet controller runs pods where `installer.fleet.selection` says, for each case of the table (F40)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from installer.fleet import selection
from tests.controller.daemonsets import daemonset_controller
from tests.controller.stage import MERGE, NAMESPACE
from tests.fleet.selections import CASES, NODES, taint
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.controller.stage import Stage

LONG = 90.0  # seconds: many times what it takes
ROOM = {"cpu": "4", "memory": "8Gi", "pods": "110"}

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(600)]


def add_daemonset(stage: Stage, name: str, template: Mapping[str, Any]) -> None:
    labels = {"of": name}
    spec = {"containers": [{"name": "a", "image": "none"}]} | dict(template)
    manifest: Any = {
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}},
    }
    stage.apps.create_namespaced_daemon_set(NAMESPACE, manifest)


def set_taints(stage: Stage, node: str, taints: list[dict[str, str]]) -> None:
    """Set all of them: the API server gives each new Node one that it is not ready."""
    patch: Any = {"spec": {"taints": taints}}
    stage.core.patch_node(node, patch, _content_type=MERGE)


def pods(stage: Stage) -> dict[str, set[str]]:
    """Return the nodes that pods are for, by the DaemonSet's name. Terminating ones do not count: no kubelet ends them."""
    found: dict[str, set[str]] = {}
    listed: Any = stage.core.list_namespaced_pod(NAMESPACE)
    for each in listed.items:
        if each.metadata.deletion_timestamp:
            continue
        required = each.spec.affinity.node_affinity.required_during_scheduling_ignored_during_execution
        (term,) = required.node_selector_terms
        found.setdefault(each.metadata.labels["of"], set()).add(term.match_fields[0].values[0])
    return found


def desired(stage: Stage) -> dict[str, int]:
    """Return on how many nodes pods are to run, by the DaemonSet's name, of those that its controller has judged."""
    listed: Any = stage.apps.list_namespaced_daemon_set(NAMESPACE)
    return {
        each.metadata.name: each.status.desired_number_scheduled
        for each in listed.items
        if each.status.observed_generation == each.metadata.generation
    }


def test_kubernetes_schedules_pods_where_the_selection_says(empty_stage: Stage) -> None:
    stage = empty_stage
    for name, node in NODES.items():
        stage.add_node(name, labels=node.labels)
        set_taints(stage, name, node.taints)
    names = {f"case-{number}": case for number, case in enumerate(CASES)}
    for name, case in names.items():
        add_daemonset(stage, name, CASES[case][0])
    expected = {name: CASES[case][1] for name, case in names.items()}
    counts = {name: len(nodes) for name, nodes in expected.items()}
    with daemonset_controller(stage):
        until(lambda: desired(stage).keys() == counts.keys(), LONG, "all are judged")
        assert {names[key]: each for key, each in desired(stage).items()} == {
            names[key]: each for key, each in counts.items()
        }
        some = {name: nodes for name, nodes in expected.items() if nodes}
        until(lambda: pods(stage) == some, LONG, "the pods are there")


def is_bound(stage: Stage) -> bool:
    """Whether the scheduler has put all pods, and there are some, onto nodes."""
    listed: Any = stage.core.list_namespaced_pod(NAMESPACE)
    return bool(listed.items) and all(each.spec.node_name for each in listed.items)


def test_kubernetes_keeps_a_pod_where_the_selection_says(empty_stage: Stage) -> None:
    stage = empty_stage
    stage.add_node("node")
    set_taints(stage, "node", [])
    room: Any = {"status": {"capacity": ROOM, "allocatable": ROOM}}
    stage.core.patch_node_status("node", room)
    add_daemonset(stage, "kept", {})
    read, keeping, evicting = selection.read({}), [taint("a")], [taint("a", "NoExecute")]
    assert read.runs_on("node", {}, keeping) == (False, True)
    assert read.runs_on("node", {}, evicting) == (False, False)
    with daemonset_controller(stage):
        until(lambda: is_bound(stage), LONG, "the pod is on the node")
        set_taints(stage, "node", keeping)
        add_daemonset(stage, "late", {})
        until(lambda: desired(stage).get("late") == 0, LONG, "the taint has been seen: no pod would start")
        assert pods(stage) == {"kept": {"node"}}
        set_taints(stage, "node", evicting)
        until(lambda: pods(stage) == {}, LONG, "the pod is told to end")

"""A resource that is deleted: nodes answer, the DaemonSet is parked, the finalizer goes; or a deadline passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from installer.controller.finalizer import FINALIZER
from tests.controller.stage import NAMESPACE, SOON
from tests.support.wait import until

if TYPE_CHECKING:
    from tests.controller.conftest import Run
    from tests.controller.stage import Stage

pytestmark = pytest.mark.apiserver

NODES = ("node1", "node2")


def healthy(stage: Stage) -> None:
    """Have two nodes on which all is well."""
    for node in NODES:
        stage.add_node(node)
        stage.add_agent(node)
    resource = stage.apply({})
    for node in NODES:
        stage.report(node, resource)
    stage.becomes("HEALTHY")
    until(lambda: stage.resource()["metadata"].get("finalizers") == [FINALIZER], SOON, "the finalizer is put on")


def selector(stage: Stage) -> dict[str, Any]:
    found: dict[str, Any] = stage.daemonset()["spec"]["template"]["spec"]["nodeSelector"]
    return found


def parked(stage: Stage) -> bool:
    return selector(stage) == {"kubernetes.io/os": "linux", "cni.istio.io/parked": "true"}


def test_resource_is_released_after_all_nodes_report_and_the_daemonset_is_parked(stage: Stage, controller: Run) -> None:
    with controller():
        healthy(stage)
        stage.delete()
        until(lambda: stage.condition("Reconciled") == ("False", "Removing"), SOON, "it is being removed")
        stage.report("node1", stage.resource(), state="Removed")
        until(lambda: "1 of 2 nodes done" in stage.cni()["statusString"], SOON, "one node is done")
        assert not parked(stage)
        stage.report("node2", stage.resource(), state="Removed")
        until(lambda: parked(stage), SOON, "the DaemonSet is parked")
        assert not stage.is_gone(), "its pods have not ended"
        for node in NODES:
            stage.end_agent(node)
        until(stage.is_gone, SOON, "the resource is gone")
        until(lambda: "Uninstalled" in dict(stage.events("mesh")), SOON, "it is told")
        reasons = [reason for reason, _ in stage.events("mesh")]
        assert "UninstallStarted" in reasons
        assert "UninstallDeadlineExceeded" not in reasons

        again = stage.apply({"values": {"cni": {"tag": "2"}}})
        until(lambda: selector(stage) == {"kubernetes.io/os": "linux"}, SOON, "the DaemonSet is parked no more")
        for node in NODES:
            stage.add_agent(node)
            stage.report(node, again)
        stage.becomes("HEALTHY")


def test_an_unresponsive_node_is_named_and_skipped_at_the_deadline(stage: Stage, controller: Run) -> None:
    with controller(deadline=6):
        healthy(stage)
        stage.delete()
        stage.report("node1", stage.resource(), state="Removed")
        stage.end_agent("node1")
        until(stage.is_gone, SOON, "the resource is gone")
        assert parked(stage)
        told = dict(stage.events("mesh"))
        assert told["UninstallDeadlineExceeded"].startswith(
            "the uninstall has not finished within 6 s and continues without: "
        )
        assert "node2" in told["UninstallDeadlineExceeded"]
        assert "node1" not in told["UninstallDeadlineExceeded"]


def test_an_agent_that_has_started_is_waited_for_behind_a_replacement_that_has_not(
    stage: Stage, controller: Run
) -> None:
    with controller(deadline=6):
        stage.add_node("node1")
        stage.add_agent("node1")
        stage.core.delete_namespaced_pod("istio-cni-node-node1", NAMESPACE, grace_period_seconds=600)
        stage.add_agent("node1", ready=False, waiting={"reason": "ContainerCreating"}, name="replacement")
        stage.apply({})
        until(lambda: stage.resource()["metadata"].get("finalizers") == [FINALIZER], SOON, "the finalizer is put on")
        stage.delete()
        until(stage.is_gone, SOON, "the resource is gone")
        told = [message for reason, message in stage.events("mesh") if reason == "UninstallDeadlineExceeded"]
        assert "the uninstall has not finished within 6 s and continues without: node1" in told


def test_the_next_controller_completes_the_uninstall(stage: Stage, controller: Run) -> None:
    with controller("first") as first:
        healthy(stage)
        stage.delete()
        until(lambda: stage.condition("Reconciled") == ("False", "Removing"), SOON, "it is being removed")
        assert first.stop() == 0
    for node in NODES:
        stage.report(node, stage.resource(), state="Removed")
        stage.end_agent(node)
    assert not stage.is_gone()
    with controller("second"):
        until(stage.is_gone, SOON, "the resource is gone")
    assert [reason for reason, _ in stage.events("mesh")].count("UninstallStarted") == 1


def test_deleted_nodes_do_not_delay_the_uninstall(stage: Stage, controller: Run) -> None:
    with controller():
        healthy(stage)
        stage.core.delete_node("node2")
        stage.end_agent("node2")
        stage.delete()
        stage.report("node1", stage.resource(), state="Removed")
        stage.end_agent("node1")
        until(stage.is_gone, SOON, "the resource is gone")


def test_enabled_false_uninstalls_the_plugin_and_keeps_the_agents(stage: Stage, controller: Run) -> None:
    with controller():
        healthy(stage)
        off = stage.apply({"cni": {"enabled": False}})
        stage.becomes("UPDATING")
        for node in NODES:
            stage.report(node, off, state="Removed")
        said = stage.becomes("NONE")
        assert said["statusString"] == "the plugin is removed from all nodes: spec.cni.enabled is false"
        assert stage.nodes().get("total") == 0
        assert not parked(stage)
        on = stage.apply({"cni": {"enabled": True}})
        stage.becomes("UPDATING")
        for node in NODES:
            stage.report(node, on)
        stage.becomes("HEALTHY")


def test_a_node_of_which_nothing_is_known_does_not_count_as_done_and_delays_no_uninstall(
    stage: Stage, controller: Run
) -> None:
    with controller():
        healthy(stage)
        off = stage.apply({"cni": {"enabled": False}})
        for node in NODES:
            stage.report(node, off, state="Removed")
        stage.becomes("NONE")
        stage.add_node("node3")
        said = stage.becomes("UPDATING")
        assert said["statusString"] == "removing the plugin: spec.cni.enabled is false; 2 of 3 nodes done"
        stage.delete()
        for node in NODES:
            stage.end_agent(node)
        until(stage.is_gone, SOON, "the resource is gone")
        assert "UninstallDeadlineExceeded" not in dict(stage.events("mesh"))

"""The status of an IstioControlPlane on a real API server, while nodes take over what it says, and fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.controller.stage import SOON
from tests.support.wait import until

if TYPE_CHECKING:
    from tests.controller.conftest import Run
    from tests.controller.stage import Controller, Stage

pytestmark = pytest.mark.apiserver

NODES = ("node1", "node2", "node3")


def all_ready(stage: Stage) -> None:
    """Have all nodes be as the resource asks for."""
    resource = stage.resource()
    for node in NODES:
        stage.report(node, resource)


def test_status_goes_from_updating_to_healthy_to_error_and_back(stage: Stage, controller: Run) -> None:
    for node in NODES:
        stage.add_node(node)
        stage.add_agent(node)
        stage.report(node)
    stage.add_node("windows", linux=False)
    with controller():
        stage.apply({"values": {"cni": {"logLevel": "debug"}}})
        said = stage.becomes("UPDATING")
        assert said["statusString"].startswith("0 of 3 nodes")
        assert stage.condition("Ready") == ("False", "Updating")
        assert stage.condition("Reconciled") == ("True", "Applied")
        all_ready(stage)
        said = stage.becomes("HEALTHY")
        assert (said["version"], said["error"]) == ("0.1.0", "")
        assert stage.condition("Ready") == ("True", "AllNodesReady")
        status = stage.resource()["status"]
        assert status["nodes"] == {"total": 3, "ready": 3, "updating": 0, "failed": 0, "unknown": 0}
        assert status["observedGeneration"] == 1

        stage.report("node2", stage.resource(), state="NotInstalled", problem="/etc/cni/net.d does not exist")
        said = stage.becomes("ERROR")
        assert said["error"] == "node node2: NotInstalled: /etc/cni/net.d does not exist"
        assert stage.condition("Degraded") == ("True", "NodesFailed")
        assert stage.resource()["status"]["unhealthyNodes"] == [
            {"node": "node2", "reason": "NotInstalled", "message": "/etc/cni/net.d does not exist"}
        ]
        all_ready(stage)
        stage.becomes("HEALTHY")
        assert stage.condition("Degraded") == ("False", "AsExpected")
    reasons = [reason for reason, _ in stage.events("mesh")]
    assert reasons == ["RolloutStarted", "RolloutCompleted", "NodeUnhealthy", "Recovered"]


def test_unchanged_status_is_not_written(stage: Stage, controller: Run) -> None:
    for node in NODES:
        stage.add_node(node)
        stage.add_agent(node)
    with controller() as first:
        stage.apply({})
        all_ready(stage)
        stage.becomes("HEALTHY")
        until(lambda: stage.resource()["metadata"].get("finalizers"), SOON, "the finalizer is put on")
        until(lambda: "RolloutCompleted" in dict(stage.events("mesh")), SOON, "its Events are written")
        done = len(stage.requests())
        look_again(stage, first)
        assert stage.writes(done) == []
    with controller("next") as second:
        look_again(stage, second)
        assert stage.writes(done) == []


def look_again(stage: Stage, controller: Controller) -> None:
    """Have a controller hear of changes that mean nothing to it, and of one that makes it compare everything."""

    def compared() -> float:
        lines = controller.get("/metrics")[1].splitlines()
        (line,) = [each for each in lines if each.startswith("istio_cni_controller_reconciliations_total")]
        return float(line.split()[1])

    before = compared()
    for node in NODES:
        stage.report(node, stage.resource())
        stage.set_agent(node)
    stage.core.patch_node("node1", {"metadata": {"labels": {"of": f"others-{before}"}}})
    until(lambda: compared() > before + 1, SOON, "it has looked again, and after that once more")


def test_kubectl_prints_the_status_columns(stage: Stage, controller: Run) -> None:
    stage.add_node("node1")
    stage.add_agent("node1")
    with controller():
        stage.report("node1", stage.apply({}))
        stage.becomes("HEALTHY")
    table = stage.cluster.kubectl("get", "icp", "--namespace=mesh", "--output=wide").splitlines()
    assert table[0].split()[:7] == ["NAME", "CNI", "VERSION", "NODES", "READY", "REASON", "MESSAGE"]
    row = "mesh HEALTHY 0.1.0 1 1 AllNodesReady 1 of 1 nodes redirect pods with these settings"
    assert " ".join(table[1].split()).startswith(row)

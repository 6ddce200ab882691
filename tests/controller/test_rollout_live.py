"""What the resource changes of the DaemonSet, by the real DaemonSet controller and scheduler; the test plays the kubelets."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from installer.objects import DAEMONSET
from tests.controller.stage import MERGE, NAMESPACE, now
from tests.kube.programs import folder
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.controller.conftest import Run
    from tests.controller.stage import Stage

NODES = ("node1", "node2", "node3", "node4")
LONG = 60.0  # seconds: many times what it takes
ROOM: dict[str, Any] = {"cpu": "4", "memory": "8Gi", "pods": "110"}
PARTS = {
    "kube-controller-manager": ["--controllers=daemonset-controller"],
    "kube-scheduler": [],
}

pytestmark = pytest.mark.timeout(240)


@contextmanager
def daemonset_controller(stage: Stage) -> Iterator[None]:
    """Run what makes pods of a DaemonSet and puts them onto nodes."""
    common = [f"--kubeconfig={stage.cluster.folder / 'admin.kubeconfig'}", "--leader-elect=false", "--secure-port=0"]
    running = []
    try:
        for name, own in PARTS.items():
            with (stage.folder / f"{name}.log").open("w") as log:
                command = ["/usr/bin/setpriv", "--pdeathsig=KILL", str(folder() / name), *common, *own]
                running.append(subprocess.Popen(command, stdout=log, stderr=log))
        yield
    finally:
        for each in running:
            each.kill()
            each.wait()


def images(stage: Stage) -> dict[str, str]:
    """Return the image of each node's agent that is ready."""
    pods: Any = stage.core.list_namespaced_pod(NAMESPACE, label_selector=f"k8s-app={DAEMONSET}").items
    ready = [each for each in pods if not each.metadata.deletion_timestamp and each.status.phase == "Running"]
    return {each.spec.node_name: each.spec.containers[0].image for each in ready}


def play_kubelets(stage: Stage, failing: str = "") -> None:
    """Have pods that were put onto nodes run, those that are deleted end, and those on a node that fails wait for ever."""
    pods: Any = stage.core.list_namespaced_pod(NAMESPACE, label_selector=f"k8s-app={DAEMONSET}").items
    for each in pods:
        name = each.metadata.name
        if each.metadata.deletion_timestamp:
            stage.core.delete_namespaced_pod(name, NAMESPACE, grace_period_seconds=0)
        elif each.spec.node_name == failing:
            say_that_a_directory_is_missing(stage, each)
        elif each.spec.node_name and each.status.phase != "Running":
            status: Any = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
            stage.core.patch_namespaced_pod_status(name, NAMESPACE, {"status": status}, _content_type=MERGE)


def say_that_a_directory_is_missing(stage: Stage, pod: Any) -> None:
    metadata = pod.metadata
    if stage.core.list_namespaced_event(
        NAMESPACE, field_selector=f"involvedObject.uid={metadata.uid},type=Warning"
    ).items:
        return
    event: Any = {
        "metadata": {"generateName": "agent.", "namespace": NAMESPACE},
        "involvedObject": {"kind": "Pod", "uid": metadata.uid, "namespace": NAMESPACE, "name": metadata.name},
        "type": "Warning",
        "reason": "FailedMount",
        "message": 'MountVolume.SetUp failed for volume "cni-bin-dir" : hostPath type check failed: /x is not a directory',
        "lastTimestamp": now(),
    }
    stage.core.create_namespaced_event(NAMESPACE, event)


@pytest.mark.parametrize("most", [1, 2])
def test_agents_are_replaced_no_more_at_a_time_than_the_chart_says(
    empty_stage: Stage, controller: Run, most: int
) -> None:
    stage = empty_stage
    stage.install_chart({"maxUnavailable": most, "tag": "0"})
    for node in NODES:
        stage.add_node(node)
        stage.core.patch_node_status(node, {"status": {"capacity": ROOM, "allocatable": ROOM}})
    with daemonset_controller(stage), controller():
        before, after = (f"registry.example/mesh/install-cni:{tag}" for tag in (0, 7))

        def all_are(image: str) -> bool:
            play_kubelets(stage)
            return images(stage) == dict.fromkeys(NODES, image)

        until(lambda: all_are(before), LONG, "each node has an agent")
        resource = stage.apply({"values": {"cni": {"tag": "7"}}})
        for node in NODES:
            stage.report(node, resource)
        fewest = len(NODES)

        def is_rolled_out() -> bool:
            nonlocal fewest
            fewest = min(fewest, len(images(stage)))
            return all_are(after)

        until(is_rolled_out, LONG, "each node has the new agent")
        assert fewest >= len(NODES) - most
        stage.becomes("HEALTHY")
        generation = stage.daemonset()["metadata"]["generation"]
        uids = {each.metadata.uid for each in stage.core.list_namespaced_pod(NAMESPACE).items if each.metadata}
        stage.report("node1", stage.resource())
        assert stage.daemonset()["metadata"]["generation"] == generation
        play_kubelets(stage)
        assert {each.metadata.uid for each in stage.core.list_namespaced_pod(NAMESPACE).items if each.metadata} == uids


def test_a_node_that_never_becomes_ready_holds_up_no_roll_out_where_a_share_may_be_unavailable_and_else_is_named(
    empty_stage: Stage, controller: Run
) -> None:
    stage, wrong = empty_stage, "wrong"
    values = {"tag": "0", "maxUnavailable": 1}
    stage.install_chart(values)
    for node in (*NODES, wrong):
        stage.add_node(node)
        stage.core.patch_node_status(node, {"status": {"capacity": ROOM, "allocatable": ROOM}})
    with daemonset_controller(stage), controller():
        before, after = (f"registry.example/mesh/install-cni:{tag}" for tag in (0, 7))

        def all_are(image: str) -> bool:
            play_kubelets(stage, wrong)
            return images(stage) == dict.fromkeys(NODES, image)

        until(lambda: all_are(before), LONG, "each node but one has an agent that is ready")
        resource = stage.apply({"values": {"cni": {"tag": "7"}}})
        for node in NODES:
            stage.report(node, resource)
        stage.report(wrong, resource, problem="cniBinDir /x is not on this node")

        def says(text: str) -> bool:
            play_kubelets(stage, wrong)
            return text in stage.cni().get("statusString", "")

        until(
            lambda: says("the roll-out waits for that, with 4 still to be replaced: at most 1 of the nodes"),
            LONG,
            "it says what for",
        )
        said = stage.cni()["statusString"]
        assert "node wrong: FailedMount: cniBinDir /x is not on this node" in said
        assert images(stage) == dict.fromkeys(NODES, before)
        del values["maxUnavailable"]
        stage.install_chart(values | {"tag": "7"})  # a share is the chart's default
        until(lambda: all_are(after), LONG, "each of the other nodes has the new agent")
        until(lambda: "the roll-out waits" not in stage.cni()["statusString"], LONG, "nobody waits any more")

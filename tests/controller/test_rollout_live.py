"""What the resource changes of the DaemonSet, by the real DaemonSet controller and scheduler; the test plays the kubelets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from installer.fleet.rollouts import ROLLOUT_BLOCKED
from installer.kube.names import DAEMONSET
from tests.controller.daemonsets import daemonset_controller
from tests.controller.stage import MERGE, NAMESPACE, now
from tests.support.wait import until

if TYPE_CHECKING:
    from tests.controller.conftest import Run
    from tests.controller.stage import Stage

NODES = ("node1", "node2", "node3", "node4")
LONG = 60.0  # seconds: many times what it takes
ROOM: dict[str, Any] = {"cpu": "4", "memory": "8Gi", "pods": "110"}

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(600)]


def images(stage: Stage) -> dict[str, str]:
    """Return the image of each node's agent that is ready."""
    pods: Any = stage.core.list_namespaced_pod(NAMESPACE, label_selector=f"k8s-app={DAEMONSET}").items
    ready = [each for each in pods if not each.metadata.deletion_timestamp and each.status.phase == "Running"]
    return {each.spec.node_name: each.spec.containers[0].image for each in ready}


def play_kubelets(stage: Stage, *failing: str, failing_image: str = "") -> None:
    """Have pods run, those that are deleted end, and those on a failing node or of a failing image wait for ever."""
    pods: Any = stage.core.list_namespaced_pod(NAMESPACE, label_selector=f"k8s-app={DAEMONSET}").items
    for each in pods:
        name = each.metadata.name
        if each.metadata.deletion_timestamp:
            stage.core.delete_namespaced_pod(name, NAMESPACE, grace_period_seconds=0)
        elif each.spec.node_name in failing or each.spec.containers[0].image == failing_image:
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
def test_max_unavailable_bounds_concurrent_replacements(empty_stage: Stage, controller: Run, most: int) -> None:
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


@pytest.mark.parametrize("most", [1, "25%"])
def test_nodes_unready_before_the_rollout_do_not_block_it(empty_stage: Stage, controller: Run, most: int | str) -> None:
    stage, wrong = empty_stage, ("wrong1", "wrong2")
    stage.install_chart({"tag": "0", "maxUnavailable": most})
    for node in (*NODES, *wrong):
        stage.add_node(node)
        stage.core.patch_node_status(node, {"status": {"capacity": ROOM, "allocatable": ROOM}})
    with daemonset_controller(stage), controller() as running:
        before, after = (f"registry.example/mesh/install-cni:{tag}" for tag in (0, 7))

        def all_are(image: str) -> bool:
            play_kubelets(stage, *wrong)
            return images(stage) == dict.fromkeys(NODES, image)

        until(lambda: all_are(before), LONG, "each node but two has an agent that is ready")
        for node in wrong:
            stage.report(node, problem="cniBinDir /x is not on this node")
        resource = stage.apply({"values": {"cni": {"tag": "7"}}})
        for node in NODES:
            stage.report(node, resource)
        fewest = len(NODES)

        def is_rolled_out() -> bool:
            nonlocal fewest
            done = all_are(after)
            fewest = min(fewest, len(images(stage)))
            return done

        until(is_rolled_out, LONG, "each of the other nodes has the new agent")
        assert fewest >= len(NODES) - 2
        assert "the roll-out waits" not in stage.cni().get("statusString", "")
        deleted = [each for each in stage.writes() if each.startswith("delete pods/")]
        assert len(deleted) >= len(NODES) - 1
        assert running.logged() == []


def test_a_failing_template_blocks_the_rollout_and_the_status_names_the_node(
    empty_stage: Stage, controller: Run
) -> None:
    stage, wrong = empty_stage, "wrong"
    stage.install_chart({"tag": "0", "maxUnavailable": 2})
    for node in (*NODES, wrong, "wrong2"):
        stage.add_node(node)
        stage.core.patch_node_status(node, {"status": {"capacity": ROOM, "allocatable": ROOM}})
    with daemonset_controller(stage), controller():
        before = "registry.example/mesh/install-cni:0"

        def old_agents() -> list[str]:
            play_kubelets(stage, wrong, "wrong2", failing_image="registry.example/mesh/install-cni:7")
            return [name for name, image in images(stage).items() if image == before]

        until(lambda: len(old_agents()) == len(NODES), LONG, "each node but two has an agent that is ready")
        for node in (wrong, "wrong2"):
            stage.report(node, problem="cniBinDir /x is not on this node")
        resource = stage.apply({"values": {"cni": {"tag": "7"}}})
        for node in NODES:
            stage.report(node, resource)
        until(lambda: len(old_agents()) == len(NODES) - 1, LONG, "one has been tried")

        def says() -> bool:
            old_agents()
            return "the rollout waits for them, with 3 agents still to be replaced" in stage.cni().get(
                "statusString", ""
            )

        until(says, LONG * 2, "it says what for")
        assert stage.condition("Degraded") == ("True", ROLLOUT_BLOCKED)
        assert len(old_agents()) == len(NODES) - 1
        stage.install_chart({"tag": "8", "maxUnavailable": 2})
        stage.apply({"values": {"cni": {"tag": "8"}}})
        after = "registry.example/mesh/install-cni:8"

        def is_mended() -> bool:
            old_agents()
            return images(stage) == dict.fromkeys(NODES, after)

        until(is_mended, LONG, "the fix reaches each of the other nodes")

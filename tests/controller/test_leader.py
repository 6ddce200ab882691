"""Two controllers never act at once, and one that is gone is followed by another."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from installer.controller.main import LOST
from installer.controller.taints import KEY
from installer.kube.lease import DEADLINE, DURATION, Lease, LeaseLostError, connect
from installer.kube.names import CONTROLLER
from tests.controller.stage import ACCOUNT, NAMESPACE, SOON
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.controller.conftest import Run
    from tests.controller.stage import Controller, Stage

pytestmark = pytest.mark.apiserver


def waits(controller: Controller) -> bool:
    return "leads; standing by" in controller.get("/readyz")[1] and "nobody" not in controller.get("/readyz")[1]


def out_of_turn(stage: Stage, *controllers: Controller) -> list[str]:
    """Return what any of them wrote while another had the lease, as `who verb resource/name`; each must have written.

    A lease is taken when the API server has answered that it is; what is written counts from when it was asked for. What the
    API server refused, as it was decided upon something outdated, was not written; and an Event that was on its way when the
    process was stopped was true then, and changes nothing.
    """
    writes = []
    for each in stage.cluster.requests_of(ACCOUNT, stage="ResponseComplete"):
        who = next((controller.name for controller in controllers if controller.made(each)), "")
        if who and each["verb"] not in ("get", "list", "watch"):
            takes = each["objectRef"]["resource"] == "leases"
            when = each["stageTimestamp" if takes else "requestReceivedTimestamp"]
            if each["responseStatus"]["code"] < 300 and each["objectRef"]["resource"] != "events":
                writes.append((when, who, takes, f"{who} {each['verb']} {path(each)}"))
    found, holder = [], ""
    for _, who, takes, what in sorted(writes):
        if takes:
            holder = who
        elif who != holder:
            found.append(what)
    acted = {who for _, who, takes, _ in writes if not takes}
    assert acted == {each.name for each in controllers}, "who writes nothing shows nothing"
    return found


def path(request: Mapping[str, Any]) -> str:
    of = request["objectRef"]
    return f"{of['resource']}/{of.get('name', '')}"


def test_standby_takes_over_after_the_leader_is_killed(stage: Stage, controller: Run) -> None:
    stage.add_node("node1")
    stage.add_agent("node1")
    first, second = controller("first"), controller("second")
    with first:
        second.start()
        until(lambda: waits(second), SOON, "the second waits")
        assert second.get("/readyz")[0] == 200, "it is as ready as it can be: a rollout must not wait for it"
        holder = stage.holder()
        stage.report("node1", stage.apply({}))
        stage.becomes("HEALTHY")
        first.stop(signal.SIGKILL)
        stage.apply({"values": {"cni": {"logLevel": "debug"}}})
        assert stage.holder() == holder
        until(second.leads, DURATION + SOON, "the second leads")
        assert stage.holder() != holder
        stage.becomes("UPDATING")
    assert out_of_turn(stage, first, second) == []


def test_stopped_leader_releases_the_lease(stage: Stage, controller: Run) -> None:
    first = controller("first")
    with first:
        assert stage.holder()
        assert first.stop() == 0
    assert stage.holder() == ""
    spec = stage.leases.read_namespaced_lease(CONTROLLER, NAMESPACE).spec
    assert spec is not None
    assert spec.lease_duration_seconds == 1
    with controller("second"):
        assert stage.holder()


def test_leader_exits_when_it_loses_the_lease(stage: Stage, controller: Run) -> None:
    first = controller("first")
    with first:
        now: dict[str, object] = {"spec": {"holderIdentity": "somebody", "leaseDurationSeconds": 3600}}
        stage.leases.patch_namespaced_lease(CONTROLLER, NAMESPACE, now)
        assert first.process
        assert first.process.wait(SOON) == LOST
        assert first.logged()[-1]["reason"] == "somebody holds the lease"
        done = len(stage.requests())
        stage.apply({})
    assert stage.writes(done) == []


def test_suspended_leader_writes_nothing_after_its_lease_is_taken(stage: Stage, controller: Run) -> None:
    stage.add_node("node1")
    first, second = controller("first"), controller("second")
    with first:
        second.start()
        until(lambda: waits(second), SOON, "the second waits")
        stage.apply({})
        until(lambda: stage.resource()["metadata"].get("finalizers"), SOON, "the first has put the finalizer on")
        stage.becomes("UPDATING")
        process = first.process
        assert process
        process.send_signal(signal.SIGSTOP)
        until(second.leads, DURATION + SOON, "the second leads")
        stage.apply({"values": {"cni": {"tag": "2"}}})
        until(lambda: stage.resource()["status"]["observedGeneration"] == 2, SOON, "the second has written a status")
        second.stop(signal.SIGKILL)  # all that is to be done now is left for the first to do, if it did anything
        stage.add_node("node2", taints=[{"key": KEY, "effect": "NoSchedule"}])
        stage.apply({}, "another")
        process.send_signal(signal.SIGCONT)
        until(lambda: process.poll() is not None or out_of_turn(stage, first, second), SOON, "the first ends")
        assert out_of_turn(stage, first, second) == []
        assert process.poll() == LOST
    assert stage.resource("another")["metadata"].get("finalizers") is None


def test_an_unrenewed_lease_expires_without_a_competitor(stage: Stage) -> None:
    kubeconfig = stage.cluster.kubeconfig("keeper", token=stage.cluster.token(NAMESPACE, CONTROLLER))
    lease, stop = Lease(connect(kubeconfig), NAMESPACE, "keeper"), threading.Event()
    assert lease.acquire(stop)
    with pytest.raises(LeaseLostError, match="not renewed for 10 s"):
        lease.run_out(stop)
    assert not lease.held
    stop.set()
    lease.run_out(stop)


def test_leader_exits_within_the_deadline_if_the_api_server_is_unreachable(stage: Stage, controller: Run) -> None:
    first = controller("first")
    with first:
        stage.cluster.kill_apiserver()
        try:
            assert first.process
            assert first.process.wait(DEADLINE + SOON) == LOST
            assert "not renewed for 10 s" in first.logged()[-1]["reason"]
        finally:
            stage.cluster.start_apiserver()
    until(lambda: stage.core.list_namespace().items, SOON, "the API server answers")
    with controller("second"):
        assert stage.holder()

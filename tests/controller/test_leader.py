"""Two controllers never act at once, and one that is gone is followed by another."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from installer.controller.command import LOST
from installer.controller.lease import DEADLINE, DURATION, NAME
from tests.controller.stage import NAMESPACE, SOON
from tests.support.wait import until

if TYPE_CHECKING:
    from tests.controller.conftest import Run
    from tests.controller.stage import Controller, Stage


def waits(controller: Controller) -> bool:
    return "leads, this one waits" in controller.get("/readyz")[1] and "nobody" not in controller.get("/readyz")[1]


def test_the_second_waits_and_takes_over_when_the_first_was_killed(stage: Stage, controller: Run) -> None:
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


def test_one_that_ends_in_order_gives_the_lease_back(stage: Stage, controller: Run) -> None:
    first = controller("first")
    with first:
        assert stage.holder()
        assert first.stop() == 0
    assert stage.holder() == ""
    spec = stage.leases.read_namespaced_lease(NAME, NAMESPACE).spec
    assert spec is not None
    assert spec.lease_duration_seconds == 1
    with controller("second"):
        assert stage.holder()


def test_one_that_loses_the_lease_ends_at_once(stage: Stage, controller: Run) -> None:
    first = controller("first")
    with first:
        now: dict[str, object] = {"spec": {"holderIdentity": "somebody", "leaseDurationSeconds": 3600}}
        stage.leases.patch_namespaced_lease(NAME, NAMESPACE, now)
        assert first.process
        assert first.process.wait(SOON) == LOST
        assert first.logged()[-1]["reason"] == "somebody has it"
        done = len(stage.requests())
        stage.apply({})
    assert stage.writes(done) == []


def test_one_that_cannot_renew_ends_before_another_may_begin(stage: Stage, controller: Run) -> None:
    first = controller("first")
    with first:
        assert first.process
        first.process.send_signal(signal.SIGSTOP)
        second = controller("second").start()
        until(second.leads, DURATION + SOON, "the second leads")
        stage.apply({})
        until(lambda: stage.resource()["metadata"].get("finalizers"), SOON, "the second has put the finalizer on")
        done = len(stage.requests())
        first.process.send_signal(signal.SIGCONT)
        assert first.process.wait(SOON) == LOST
        assert [each for each in stage.writes(done) if "status" in each] == []


def test_without_an_api_server_it_ends_within_the_deadline(stage: Stage, controller: Run) -> None:
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

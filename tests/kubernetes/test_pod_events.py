"""What an agent tells those whose pods do not come up."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from installer.kube import event_queue
from installer.kube.api_error import ApiError
from installer.kube.credentials import credentials
from installer.kube.event_queue import EventQueue
from tests.kubernetes.conftest import SOON, apply, events, node_agent, ready
from tests.kubernetes.front import Front, Said
from tests.support.wait import eventually, until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.kubernetes.conftest import Node
    from tests.support.agent import AgentProcess
    from tests.support.cluster import Cluster

pytestmark = pytest.mark.apiserver

EXCLUDED = "kube-system"  # by the agent's own settings


def create(cluster: Cluster, node: Node, name: str, namespace: str = "default") -> None:
    """Create a meshed pod with an init container of its own."""
    manifest: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "annotations": {"sidecar.istio.io/status": "{}"}},
        "spec": {
            "nodeName": node.name,
            "containers": [{"name": each, "image": "none"} for each in ("app", "istio-proxy")],
            "initContainers": [{"name": "migrate", "image": "none"}],
        },
    }
    cluster.kubectl("create", "--filename=-", text=json.dumps(manifest))


def fails(cluster: Cluster, name: str, namespace: str = "default") -> None:
    """Write what a kubelet does of an init container that has failed."""
    ended = {"name": "migrate", "state": {"waiting": {}}, "lastState": {"terminated": {"exitCode": 1}}, "ready": False,
             "restartCount": 1, "image": "", "imageID": ""}  # fmt: skip
    status = json.dumps({"status": {"initContainerStatuses": [ended]}})
    cluster.kubectl("patch", "pod", name, f"--namespace={namespace}", "--subresource=status", f"--patch={status}")


def test_each_problem_is_one_event_at_its_pod(cluster: Cluster, node: Node, running: AgentProcess) -> None:
    names = [f"{each}-{node.name}" for each in ("excluded", "failing", "patient")]
    excluded, failing, patient = names
    try:
        create(cluster, node, excluded, EXCLUDED)
        create(cluster, node, patient, "default")
        create(cluster, node, failing, "default")
        fails(cluster, failing)
        until(lambda: events(cluster, failing), SOON, "what fails is told of")  # F21
        until(lambda: events(cluster, excluded, EXCLUDED), SOON, "and what was injected in vain")  # F22
        fails(cluster, patient)
        until(lambda: events(cluster, patient), SOON, "and what fails later")
        ((reason, said),) = events(cluster, failing)
        assert reason == "InitContainerBeforeSidecar"
        assert "excludeOutboundIPRanges" in said
        ((reason, said),) = events(cluster, excluded, EXCLUDED)
        assert reason == "InjectedButExcluded"
        assert f"namespace {EXCLUDED} is excluded" in said
        assert running.process
        assert running.process.poll() is None
    finally:
        cluster.kubectl("delete", "pod", failing, patient, "--force", "--ignore-not-found")
        cluster.kubectl("delete", "pod", excluded, f"--namespace={EXCLUDED}", "--force", "--ignore-not-found")


def test_a_pod_about_which_no_event_is_taken_holds_up_no_other(
    cluster: Cluster, node: Node, running: AgentProcess
) -> None:  # F37
    going, first, later = f"going-{node.name}", f"first-{node.name}", f"later-{node.name}"
    cluster.kubectl("create", "namespace", going)
    create(cluster, node, first, going)
    create(cluster, node, later)
    try:
        cluster.kubectl("delete", "namespace", going, "--wait=false")  # no controller ends it here
        fails(cluster, first, going)
        until(lambda: "because it is being terminated" in running.log.read_text(), SOON, "the Event is refused")
        fails(cluster, later)
        until(lambda: events(cluster, later), SOON, "the other one is told of")
    finally:
        cluster.kubectl("delete", "pod", first, f"--namespace={going}", "--force", "--ignore-not-found")
        cluster.kubectl("delete", "pod", later, "--force", "--ignore-not-found")
        cluster.kubectl(
            "replace",
            "--raw",
            f"/api/v1/namespaces/{going}/finalize",
            "--filename=-",
            text=json.dumps(
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": going}, "spec": {"finalizers": []}}
            ),
        )


async def test_events_that_the_api_server_does_not_take_for_now_are_written_later(
    tmp_path: Path, cluster: Cluster, node: Node, served: Path
) -> None:
    """Those of a running pod without redirect, which is settled, and of a node: each is said once."""
    sandboxed, failing = f"sandboxed-{node.name}", f"failing-{node.name}"
    apply(
        cluster,
        {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "gvisor"}, "handler": "runsc"},
    )
    info, refused, hidden = await asyncio.to_thread(credentials, served), 0, True

    def away(path: str) -> Said | None:
        nonlocal refused
        if hidden and path.endswith("/istiocontrolplanes"):
            return Said(403, "not for you", "text/plain")
        if not path.endswith("/events"):
            return None
        refused += 1
        return Said(503, "away", "text/plain")

    async with Front(info.server, info.as_ssl_context()) as front:
        front.instead = away
        with node_agent(tmp_path, cluster, node.name, front.kubeconfig(served, tmp_path / "kubeconfig")) as agent:
            await eventually(
                lambda: ready(cluster, node) == ("False", "SettingsNotSynced"), SOON, "without settings it is not ready"
            )
            assert "not for you" in agent.get("/readyz")[1]
            hidden = False
            await asyncio.to_thread(agent.ready)
            node.start_pod(sandboxed, spec={"runtimeClassName": "gvisor"})
            status = {"phase": "Running", "podIPs": [{"ip": "10.9.9.9"}]}
            cluster.core.patch_namespaced_pod_status(sandboxed, "default", {"status": status})
            create(cluster, node, failing)
            node.started(failing)
            fails(cluster, failing)
            log = agent.log.read_text
            for reason in ("RedirectIneffective", "InitContainerBeforeSidecar"):
                await eventually(lambda reason=reason: reason in log(), SOON, "it is told in the log")  # type: ignore[misc]
            await eventually(lambda: refused, SOON, "an Event is refused")
            back, front.instead = datetime.now(UTC), lambda _: None
            for name, reason in ((sandboxed, "RedirectIneffective"), (failing, "InitContainerBeforeSidecar")):
                await eventually(lambda name=name: events(cluster, name), SOON, "its Event is written")  # type: ignore[misc]
                assert [each for each, _ in events(cluster, name)] == [reason]
            await eventually(lambda: events(cluster, node.name), SOON, "the node's, too")
            found = cluster.admin.read("/apis/events.k8s.io/v1/namespaces/default/events")["items"]
            times = [each["eventTime"] for each in found if each["regarding"]["name"] in (sandboxed, failing)]
            assert all(datetime.fromisoformat(each) < back for each in times), "when it happened"
            await asyncio.to_thread(agent.stop)


class Taken:
    """Takes Events, or refuses them, or does not answer."""

    def __init__(self, *errors: ApiError) -> None:
        self.errors, self.notes, self.tried = [*errors], list[str](), 0
        self.hangs = False

    async def record(self, _: Mapping[str, str], __: str, note: str, *, warning: bool, at: datetime) -> bool:
        assert (warning, at.tzinfo) == (True, UTC)
        self.tried += 1
        if self.errors:
            raise self.errors.pop(0)
        if self.hangs:
            await asyncio.Event().wait()
        self.notes.append(note)
        return True


def queue(recorder: Taken) -> EventQueue:
    return EventQueue(recorder)  # type: ignore[arg-type]


async def test_waiting_events_are_bounded_in_number_and_age(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = Taken(ApiError("away", 503))
    waiting, about = queue(taken), {"uid": "1", "name": "web"}
    for number in range(event_queue.MOST + 10):
        waiting.add(about, "Why", f"{number}", warning=True)
        waiting.add(about, "Why", f"{number}", warning=True)
    assert await waiting.deliver() is not None
    assert taken.tried == 1, "one refusal says that the API server is away"
    assert await waiting.deliver() is None
    assert taken.notes == [f"{number}" for number in range(10, event_queue.MOST + 10)]
    monkeypatch.setattr(event_queue, "LONGEST", -1.0)
    waiting.add(about, "Why", "too old", warning=True)
    assert await waiting.deliver() is None
    assert "too old" not in taken.notes


async def test_events_that_are_refused_for_good_wait_behind_the_others() -> None:
    denied = ApiError("denied", 403)
    taken = Taken(*[denied] * event_queue.REFUSED)
    waiting, about = queue(taken), {"uid": "1", "name": "web"}
    for number in range(event_queue.REFUSED):
        waiting.add(about, "Why", f"refused {number}", warning=True)
    assert await waiting.deliver() is denied
    waiting.add(about, "Why", "another", warning=True)
    assert await waiting.deliver() is None
    assert taken.notes[0] == "another"
    assert len(taken.notes) == 1 + event_queue.REFUSED


@pytest.mark.parametrize("hangs", [False, True])
@pytest.mark.parametrize("begins", ["before the stop", "after it"])
async def test_an_agent_that_stops_waits_for_its_last_event_but_not_without_end(
    monkeypatch: pytest.MonkeyPatch, begins: str, *, hangs: bool
) -> None:
    monkeypatch.setattr(event_queue, "LAST", 0.1)
    taken, stop = Taken(), asyncio.Event()
    taken.hangs = hangs
    waiting = queue(taken)
    waiting.add({"uid": "1", "name": "web"}, "Why", "last", warning=True)
    if begins == "after it":
        stop.set()
    running = asyncio.create_task(waiting.run(stop))
    await eventually(lambda: taken.tried, SOON, "its delivery has begun")
    stop.set()
    done, _ = await asyncio.wait([running], timeout=60)
    running.cancel()
    assert done
    assert taken.tried == 1, "an Event under way is not sent twice"
    assert taken.notes == ([] if hangs else ["last"])

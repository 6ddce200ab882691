"""How a node is judged, by report, pod and warning; and what is said of a pod that does not run."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from installer.controller.plan import update_unhealthy_since
from installer.fleet.node_case import Desired, Observation
from installer.fleet.node_health import PATIENCE, NodeHealth, State, judge
from installer.fleet.pod_diagnosis import PodWarning, explain_pod
from installer.fleet.reasons import REMOVED
from tests.controller.samples import LONG_AGO, NODE, NOW, POD, SETTINGS, TEMPLATE, node, pod, report, unready

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from installer.fleet.objects import AgentPod, Report

pytestmark = pytest.mark.pure

FAILED, UNKNOWN, REMOVING, REPAIRING, UPDATING, READY, DONE = State
INSTALL = Desired(installed=True, settings=SETTINGS, template=TEMPLATE)
REMOVE = Desired(installed=False, settings=SETTINGS, template=TEMPLATE)
OLD = SETTINGS._replace(generation=SETTINGS.generation - 1)
SAYS_NO: dict[str, Any] = {
    "ready": False,
    "reason": "NotInstalled",
    "message": "no network configuration yet",
    "since": NOW,
}
CONTROLLERS: dict[str, Any] = {"state": "", "ready": False, "by_controller": True, "settings": None}
BARELY = timedelta(microseconds=1)


def judged(
    asked: Desired, of: Report | None, its_pod: AgentPod | None, warned: PodWarning | None = None
) -> list[NodeHealth]:
    """Judge a node that is unwell from now on: at once, at the very end of patience, and after it."""
    seen = Observation(NODE, of, its_pod, warning=warned)
    return [judge(seen, asked, NOW + after, NOW) for after in (timedelta(0), PATIENCE - BARELY, PATIENCE)]


def missing(volume: str, path: str) -> PodWarning:
    return PodWarning(
        "FailedMount",
        f'MountVolume.SetUp failed for volume "{volume}" : hostPath type check failed: {path} is not a directory',
    )


@pytest.mark.parametrize(
    ("of", "its_pod", "reason", "soon", "late"),
    [
        (report(), pod(), "", READY, READY),
        (report(), None, "NoAgent", UPDATING, UNKNOWN),
        (None, None, "NoAgent", UPDATING, UNKNOWN),
        (None, pod(), "NoReport", UPDATING, UNKNOWN),
        (report(settings=OLD), pod(), "OutdatedSettings", UPDATING, FAILED),
        (report(settings=None), pod(), "OutdatedSettings", UPDATING, FAILED),
        (report(settings=SETTINGS._replace(uid="of-another")), pod(), "OutdatedSettings", UPDATING, FAILED),
        (report(**SAYS_NO), pod(), "NotInstalled", REPAIRING, FAILED),
        (report(**SAYS_NO), pod(template="6"), "NotInstalled", UPDATING, FAILED),
        (report(**SAYS_NO, settings=OLD), pod(), "OutdatedSettings", UPDATING, FAILED),
        (report(ready=None, reason="", since=NOW), pod(), "NotReady", REPAIRING, FAILED),
        (report(state="NotInstalled", since=NOW), pod(), "Redirecting", REPAIRING, FAILED),
        (report(), pod(template="6"), "WaitingForUpdate", UPDATING, UPDATING),
        (report(), pod(terminating=True), "WaitingForUpdate", UPDATING, UPDATING),
        (report(), unready("NotReady", terminating=True), "WaitingForUpdate", UPDATING, UPDATING),
        (report(), unready("NotReady"), "NotReady", REPAIRING, FAILED),
        (report(**SAYS_NO), unready("NotReady"), "NotInstalled", REPAIRING, FAILED),
        (report(**SAYS_NO), unready("Pending"), "Pending", REPAIRING, FAILED),
        (report(), unready("Pending", template="6"), "Pending", UPDATING, FAILED),
        (report(settings=OLD), unready("Pending"), "Pending", UPDATING, FAILED),
        (None, unready("NotReady"), "NotReady", UPDATING, FAILED),
        (None, unready("ContainerCreating"), "ContainerCreating", UPDATING, FAILED),
    ],
)
def test_verdict_on_a_node_that_gets_the_plugin(
    of: Report | None, its_pod: AgentPod | None, reason: str, soon: State, late: State
) -> None:
    said = judged(INSTALL, of, its_pod)
    assert [each.state for each in said] == [soon, soon, late]
    assert {(each.node, each.reason) for each in said} == {(NODE, reason)}
    assert all(bool(each.message) is (soon is not READY) for each in said)


@pytest.mark.parametrize(
    ("of", "its_pod", "reason", "soon", "late"),
    [
        (None, None, "NoAgent", REMOVING, UNKNOWN),
        (report(**CONTROLLERS), None, "NoAgent", REMOVING, UNKNOWN),
        (report(state=REMOVED, ready=False), pod(), "", DONE, DONE),
        (report(state=REMOVED, ready=False), None, "", DONE, DONE),
        (report(), None, "NoAgent", REMOVING, UNKNOWN),
        (report(), pod(), "NotRemoved", REMOVING, FAILED),
        (None, pod(), "NoReport", REMOVING, UNKNOWN),
        (report(state="NotInstalled"), unready("NotReady"), "NotRemoved", REMOVING, FAILED),
        (report(**SAYS_NO), pod(), "NotInstalled", REMOVING, FAILED),
        (report(), unready("Pending"), "Pending", REMOVING, FAILED),
        (None, unready("Pending"), "Pending", REMOVING, FAILED),
    ],
)
def test_verdict_on_a_node_that_loses_the_plugin(
    of: Report | None, its_pod: AgentPod | None, reason: str, soon: State, late: State
) -> None:
    said = judged(REMOVE, of, its_pod)
    assert [each.state for each in said] == [soon, soon, late]
    assert {(each.node, each.reason) for each in said} == {(NODE, reason)}


def test_where_no_agent_ever_came_it_says_how_a_removal_is_known_of() -> None:
    """Neither a taint nor an affinity of now proves that no agent was there before."""
    (*_, said), (*_, of_reported) = judged(REMOVE, None, None), judged(REMOVE, report(), None)
    ways = "let its agent run there, which reports what it finds, or leave the node out with cni.nodeSelector or cni.affinity"
    assert ways in said.message
    assert ways not in of_reported.message


@pytest.mark.parametrize(
    "reason",
    [
        "CrashLoopBackOff", "CreateContainerConfigError", "CreateContainerError", "ErrImageNeverPull", "ErrImagePull",
        "Error", "ImageInspectError", "ImagePullBackOff", "InvalidImageName", "OOMKilled", "RunContainerError",
    ],
)  # fmt: skip
@pytest.mark.parametrize("of", [report(), None], ids=["reported", "unknown"])
@pytest.mark.parametrize("asked", [INSTALL, REMOVE], ids=["install", "removal"])
def test_permanent_failure_has_no_patience(asked: Desired, of: Report | None, reason: str) -> None:
    assert {(each.state, each.reason) for each in judged(asked, of, unready(reason))} == {(FAILED, reason)}


@pytest.mark.parametrize("asked", [INSTALL, REMOVE], ids=["install", "removal"])
def test_a_missing_directory_fails_at_once_where_an_agent_ran_before(asked: Desired) -> None:
    said = judged(asked, report(), unready("ContainerCreating"), missing("cni-bin-dir", "/opt/cni/bin"))
    assert {(each.state, each.reason) for each in said} == {(FAILED, "FailedMount")}
    assert "cniBinDir /opt/cni/bin is not on this node" in said[0].message
    soon = UPDATING if asked.installed else REMOVING
    new = judged(asked, None, unready("ContainerCreating"), missing("cni-bin-dir", "/opt/cni/bin"))
    assert [each.state for each in new] == [soon, soon, FAILED], "its primary CNI may be about to make it"


def test_patience_begins_when_the_agent_is_replaced() -> None:
    since: Mapping[str, datetime] = {}
    turn = NOW + 10 * PATIENCE
    for now, its_pod, expected in (
        (NOW, pod(template="6"), UPDATING),
        (turn - BARELY, pod(template="6"), UPDATING),
        (turn, None, UPDATING),
        (turn + PATIENCE - BARELY, unready("ContainerCreating"), REPAIRING),
        (turn + PATIENCE, unready("ContainerCreating"), FAILED),
    ):
        said = judge(Observation(NODE, report(), its_pod), INSTALL, now, since.get(NODE, now))
        since = update_unhealthy_since(since, [said], now)
        assert said.state is expected, (now - turn, said)
    well = judge(Observation(NODE, report(), pod()), INSTALL, now, since[NODE])
    assert update_unhealthy_since(since, [well], now) == {}


def test_a_mount_that_fails_for_another_reason_may_succeed_a_moment_later() -> None:
    passing = PodWarning(
        "FailedMount", 'MountVolume.SetUp failed for volume "kube-api-access" : failed to sync configmap cache'
    )
    said = judged(INSTALL, report(), unready("ContainerCreating"), passing)
    assert [(each.state, each.reason) for each in said] == [
        (REPAIRING, "FailedMount"), (REPAIRING, "FailedMount"), (FAILED, "FailedMount"),
    ]  # fmt: skip


@pytest.mark.parametrize("warned", [None, missing("cni-conf-dir", "/a/net.d")], ids=["unknown", "warned"])
@pytest.mark.parametrize("reason", ["ContainerCreating", "ImagePullBackOff"])
def test_the_controllers_condition_of_a_node_that_is_not_ready_stays_as_it_is(
    reason: str, warned: PodWarning | None
) -> None:
    seen = Observation(NODE, None, unready(reason), node(ready=False), warning=warned)
    first = judge(seen, INSTALL, NOW, LONG_AGO)
    again = report(**CONTROLLERS, reason=first.reason, message=first.message, written=NOW)
    assert judge(replace(seen, report=again), INSTALL, NOW, LONG_AGO) == first
    without_event = replace(seen, report=again, warning=None)
    if reason == "ContainerCreating":
        assert judge(without_event, INSTALL, NOW, LONG_AGO) == first


def test_a_node_that_is_not_ready_as_its_agent_lacks_a_directory_names_the_value() -> None:
    seen = Observation(
        NODE, None, unready("ContainerCreating"), node(ready=False), warning=missing("cni-conf-dir", "/a/net.d")
    )
    said = judge(seen, INSTALL, NOW, LONG_AGO)
    assert said.reason == "NodeNotReady"
    assert "cniConfDir /a/net.d is not on this node" in said.message


def test_a_new_pod_does_not_inherit_the_failure_of_the_one_before() -> None:
    before = report(**CONTROLLERS, reason="ImagePullBackOff", message="no such image", written=NOW - 20 * PATIENCE)
    new = unready("ContainerCreating", created=NOW - BARELY)
    said = judge(Observation(NODE, before, new), INSTALL, NOW, NOW)
    assert (said.state, said.reason) == (UPDATING, "ContainerCreating")
    assert "no such image" not in said.message
    old = unready("ContainerCreating", created=LONG_AGO)
    assert judge(Observation(NODE, before, old), INSTALL, NOW, NOW).reason == "ImagePullBackOff"


def test_invalid_resource_accepts_any_settings_and_an_unknown_template_is_current() -> None:
    wrong = Desired(installed=True, settings=None, template=TEMPLATE, any_settings=True)
    assert judged(wrong, report(settings=OLD), pod())[-1].state is READY
    unknown = Desired(installed=True, settings=SETTINGS, template="")
    assert judged(unknown, report(), pod(template="6"))[-1].state is READY
    assert judged(INSTALL, report(), pod(template=""))[-1].state is READY


@pytest.mark.parametrize("its_pod", [pod(), unready("NotReady")], ids=["ready", "unready"])
def test_patience_counts_from_what_the_agent_says_if_it_does(its_pod: AgentPod) -> None:
    no = report(**SAYS_NO | {"since": NOW - PATIENCE})
    assert judged(INSTALL, no, its_pod)[0] == NodeHealth(NODE, FAILED, "NotInstalled", "no network configuration yet")
    unknown = Observation(NODE, report(**SAYS_NO | {"since": None}), its_pod)
    assert judge(unknown, INSTALL, NOW, NOW).state is REPAIRING
    assert judge(unknown, INSTALL, NOW, LONG_AGO).state is FAILED


def test_report_without_a_reason_has_a_default_message() -> None:
    mute = report(ready=False, reason="", message="")
    assert judged(INSTALL, mute, pod())[0][2:] == ("NotReady", "its agent does not say why")


def test_messages_name_the_pod_whose_log_says_more() -> None:
    assert POD in judged(INSTALL, report(settings=OLD), pod())[0].message


NETNS_DIR = missing("netns-dir", "/var/run/netns")
PULL = PodWarning("Failed", "Error: ErrImagePull")


@pytest.mark.parametrize(
    ("its_pod", "warned", "reason", "said"),
    [
        (unready("ContainerCreating"), NETNS_DIR, "FailedMount", f"does not start: {NETNS_DIR.message}"),
        (unready(""), PULL, "Failed", "does not start: Error: ErrImagePull"),
        (unready("Pending"), PULL, "Failed", "does not start: Error: ErrImagePull"),
        (unready("PodInitializing"), PULL, "Failed", "does not start: Error: ErrImagePull"),
        (unready("Evicted", "disk"), PULL, "Evicted", "is not ready: disk"),
        (unready("Pending"), None, "Pending", "is not ready: Pending"),
        (unready("CrashLoopBackOff", "x"), None, "CrashLoopBackOff", f"x; kubectl logs --previous {POD} says why it exits"),
        (unready("Unschedulable", "0/3"), None, "Unschedulable", "is not ready: 0/3; free resources on the node: the pod's"),
    ],
)  # fmt: skip
def test_pod_warning_has_reason_and_remedy(
    its_pod: AgentPod, warned: PodWarning | None, reason: str, said: str
) -> None:
    found = explain_pod(its_pod, warned)
    assert found.reason == reason
    assert found.message.startswith(f"the agent's pod {POD} ")
    assert said in found.message


@pytest.mark.parametrize("reason", ["ContainerCreating", ""])
@pytest.mark.parametrize(
    ("warned", "value", "what"),
    [
        (missing("cni-bin-dir", "/a/bin"), "cniBinDir /a/bin", "plugins"),
        (missing("cni-conf-dir", "/a/net.d"), "cniConfDir /a/net.d", "network configuration"),
    ],
)
def test_missing_directory_names_its_value(reason: str, warned: PodWarning, value: str, what: str) -> None:
    found = explain_pod(unready(reason), warned)
    assert found.reason == "FailedMount"
    assert found.message.startswith(
        f"{value} is not on this node: its container runtime has its {what} elsewhere, or the directory does not exist yet. "
    )
    assert f"Set spec.values.cni.{value.partition(' ')[0]}, or the chart's platform, to where that is" in found.message


def test_other_mount_warning_is_not_a_missing_directory() -> None:
    other = missing("cni-bin-dir", "/a/bin")._replace(reason="FailedSync")
    assert explain_pod(unready("ContainerCreating"), other).reason == "FailedSync"


def test_a_pod_without_status_has_a_default_reason() -> None:
    assert explain_pod(unready(""), None).reason == "NotReady"


@pytest.mark.parametrize(
    "reason", ["ErrImageNeverPull", "ErrImagePull", "ImageInspectError", "ImagePullBackOff", "InvalidImageName"]
)
def test_image_failure_names_its_values(reason: str) -> None:
    found = explain_pod(unready(reason, "no such image"), PodWarning("Failed", "Error: ErrImagePull"))
    assert found.reason == reason
    assert found.message.startswith(f"the agent's pod {POD} is not ready: no such image; check hub, tag and pullPol")

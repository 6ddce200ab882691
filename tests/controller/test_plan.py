"""Which resource counts, what is wrong with it, how the DaemonSet is to be, and which nodes are judged."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from installer.controller import plan
from installer.controller.plan import World
from installer.controller.pod_template import RESOURCE_VALUES, RolloutError, build_wish
from installer.fleet.node_health import PATIENCE, State
from installer.fleet.pod_diagnosis import PodWarning
from installer.fleet.reasons import REMOVED
from installer.kube.names import PARKED
from tests.controller.samples import (
    LINUX,
    NODE,
    NOW,
    SETTINGS,
    daemonset,
    node,
    pod,
    report,
    resource,
    unready,
    written,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from installer.controller.pod_template import Wish

pytestmark = pytest.mark.pure

CHARTS_OWN = daemonset(build_wish(daemonset(), None, parked=False))
PARKED_ONE = daemonset(build_wish(daemonset(), None, parked=True))
OF_A_RESOURCE = CHARTS_OWN | {
    "metadata": CHARTS_OWN["metadata"]
    | {"annotations": CHARTS_OWN["metadata"]["annotations"] | {RESOURCE_VALUES: '{"tag": "2"}'}}
}
ASKED: dict[str, Any] = {"cni": {"tag": "2"}}
GOOD, GOING = resource(values=ASKED), resource(terminating=True, values=ASKED)
DISABLED = resource(cni={"enabled": False})
WRONG = resource(values={"cni": {"tga": "2"}}, tag=1.1)
ELSEWHERE = resource(cni={"components": {"cni": {"namespace": "elsewhere"}}})
WINDOWS = {"kubernetes.io/os": "windows"}


def world(*resources: Mapping[str, Any], **seen: Any) -> World:
    """A node on which all is well."""
    well = World(resources, CHARTS_OWN, {NODE: node()}, {NODE: report()}, {NODE: pod()})
    return replace(well, **seen)


def planned(seen: World) -> plan.Plan:
    return plan.make_plan(seen, "mesh")


@pytest.mark.parametrize(
    ("resources", "counts"),
    [
        ([], None),
        ([resource("b", created=1), resource("a", created=2)], "b"),
        ([resource("a", created=2), resource("b", created=1)], "b"),
        ([resource("b"), resource("a")], "a"),
        ([resource("a", created=1, terminating=True), resource("b", created=2)], "b"),
        ([resource("b", created=2, terminating=True), resource("a", created=1, terminating=True)], "a"),
        ([WRONG, resource("b", created=2)], "mesh"),
    ],
)
def test_oldest_resource_not_being_deleted_is_active(resources: list[Mapping[str, Any]], counts: str | None) -> None:
    made = planned(world(*resources))
    assert (made.active["metadata"]["name"] if made.active else None) == counts
    for each in resources:
        itself = each["metadata"]["name"] == counts
        reasons = [fault.reason for fault in plan.faults_of(each, made)]
        assert reasons == ([fault.reason for fault in made.faults] if itself else ["Superseded"])


def test_younger_resource_names_the_active_one() -> None:
    made = planned(world(resource("old"), resource("young", created=2)))
    (fault,) = plan.faults_of(resource("young", created=2), made)
    assert fault.message.startswith("IstioControlPlane mesh/old takes precedence, as it is older")


@pytest.mark.parametrize(
    ("resources", "seen", "installed", "removal"),
    [
        ([], CHARTS_OWN, True, ""),
        ([], OF_A_RESOURCE, True, ""),
        ([], PARKED_ONE, False, "no IstioControlPlane is left"),
        ([], None, False, "no IstioControlPlane is left"),
        ([GOOD], CHARTS_OWN, True, ""),
        ([GOOD], PARKED_ONE, True, ""),
        ([GOOD], None, True, ""),
        ([WRONG], CHARTS_OWN, True, ""),
        ([DISABLED], CHARTS_OWN, False, "spec.cni.enabled is false"),
        ([GOING], CHARTS_OWN, False, "the resource is deleted"),
    ],
)
def test_plan_says_whether_the_plugin_is_installed(
    resources: list[Mapping[str, Any]], seen: Mapping[str, Any] | None, installed: bool, removal: str
) -> None:
    made = planned(world(*resources, daemonset=seen))
    assert (made.installed, made.removal) == (installed, removal)


@pytest.mark.parametrize(
    ("of", "seen", "faults"),
    [
        (GOOD, CHARTS_OWN, []),
        (resource(cni={"components": {"cni": {"namespace": "mesh"}}}), CHARTS_OWN, []),
        (GOOD, None, [("DaemonSetNotFound", "there is no DaemonSet istio-cni-node in namespace mesh; helm upgrade")]),
        (ELSEWHERE, CHARTS_OWN, [("WrongNamespace", "saw elsewhere, expected mesh, where the chart has put the agents")]),
        (ELSEWHERE, None, [("WrongNamespace", "helm upgrade --set cni.namespace=elsewhere"), ("DaemonSetNotFound", "")]),
        (WRONG, None, [("Invalid", "spec.values.cni.tga: no such value; is tag meant?; spec.tag: saw 1.1")]),
        (GOING, None, []),
    ],
)  # fmt: skip
def test_plan_names_the_faults_of_a_resource(
    of: Mapping[str, Any], seen: Mapping[str, Any] | None, faults: list[tuple[str, str]]
) -> None:
    made = planned(world(of, daemonset=seen))
    assert [each.reason for each in made.faults] == [reason for reason, _ in faults]
    assert all(said in each.message for each, (_, said) in zip(made.faults, faults, strict=True))
    assert (made.spec is None) is (of is WRONG)


WITH_GOOD, PARKED_WITH_GOOD = (
    daemonset(build_wish(daemonset(), planned(world(GOOD)).spec, parked=parked)) for parked in (False, True)
)


def tag_and_selector(seen: Mapping[str, Any] | None, wished: Wish | None) -> tuple[str, dict[str, str]] | None:
    if wished is None or seen is None:
        return None
    spec = written(seen, wished)["spec"]["template"]["spec"]
    return spec["containers"][0]["image"].rpartition(":")[2], spec["nodeSelector"]


@pytest.mark.parametrize(
    ("resources", "seen", "park", "expected"),
    [
        ([], None, False, None),
        ([], CHARTS_OWN, False, None),
        ([], daemonset(), False, None),
        ([], OF_A_RESOURCE, False, ("1", LINUX)),
        ([], PARKED_ONE, False, None),
        ([], PARKED_WITH_GOOD, False, ("1", LINUX | PARKED)),
        ([GOOD], CHARTS_OWN, False, ("2", LINUX)),
        ([GOOD], daemonset(), False, ("2", LINUX)),
        ([GOOD], PARKED_ONE, False, ("2", LINUX)),
        ([GOOD], WITH_GOOD, False, None),
        ([GOOD], None, False, None),
        ([DISABLED], CHARTS_OWN, False, None),
        ([DISABLED], OF_A_RESOURCE, False, ("1", LINUX)),
        ([WRONG], OF_A_RESOURCE, False, None),
        ([ELSEWHERE], OF_A_RESOURCE, False, None),
        ([GOING], OF_A_RESOURCE, False, None),
        ([GOING], OF_A_RESOURCE, True, ("1", LINUX | PARKED)),
        ([GOING], PARKED_ONE, True, None),
        ([GOING], PARKED_WITH_GOOD, True, None),
        ([GOING], None, True, None),
    ],
)
def test_plan_makes_the_desired_daemonset(
    resources: list[Mapping[str, Any]],
    seen: Mapping[str, Any] | None,
    park: bool,
    expected: tuple[str, dict[str, str]] | None,
) -> None:
    observed = world(*resources, daemonset=seen)
    assert tag_and_selector(seen, plan.desired_daemonset(observed, planned(observed), park=park)) == expected


def test_a_daemonset_of_another_chart_stays_unchanged_and_is_named() -> None:
    observed = world(GOOD, daemonset=daemonset(chart=None))
    with pytest.raises(RolloutError):
        plan.desired_daemonset(observed, planned(observed), park=False)


@pytest.mark.parametrize(
    ("of", "expected"), [(GOOD, ["linux"]), (DISABLED, ["linux", "reported"]), (GOING, ["linux", "reported"])]
)
def test_nodes_with_the_plugin_are_judged_until_it_is_removed(of: Mapping[str, Any], expected: list[str]) -> None:
    nodes = {name: node(name, labels=WINDOWS) for name in ("windows", "reported")} | {"linux": node("linux")}
    reports = {name: report(name, state=REMOVED) for name in ("reported", "gone")}
    observed = world(of, nodes=nodes, reports=reports, pods={})
    assert plan.managed_nodes(observed, planned(observed)) == expected
    assert [each.node for each in plan.judge_fleet(observed, planned(observed), {}, NOW).verdicts] == expected
    assert not plan.nodes_with_agents(replace(observed, daemonset=None))


def test_a_running_agent_counts_on_a_node_that_is_no_longer_selected() -> None:
    """As with a NoSchedule taint, while it is not about to end; the sample's DaemonSet tolerates nothing."""
    repelling = {"key": "of.others/taint", "effect": "NoSchedule"}
    observed = world(GOOD, nodes={NODE: node(taints=(repelling,))})
    assert plan.nodes_with_agents(observed) == {NODE}
    assert plan.nodes_with_agents(observed, besides=[repelling | {"effect": "NoExecute"}]) == set()
    for pods in ({}, {NODE: pod(terminating=True)}):
        assert plan.nodes_with_agents(replace(observed, pods=pods)) == set()
        assert plan.managed_nodes(replace(observed, pods=pods), planned(observed)) == []


@pytest.mark.parametrize(
    ("observed", "since", "state", "reason"),
    [
        (world(GOOD), NOW, State.READY, ""),
        (world(GOOD, reports={}), NOW, State.UPDATING, "NoReport"),
        (world(GOOD, reports={}), None, State.UPDATING, "NoReport"),
        (world(GOOD, reports={}), NOW - PATIENCE, State.UNKNOWN, "NoReport"),
        (world(resource("another")), NOW, State.UPDATING, "OutdatedSettings"),
        (world(GOOD, pods={NODE: pod(template="6")}), NOW, State.UPDATING, "WaitingForUpdate"),
        (world(WRONG, reports={NODE: report(settings=None)}), NOW, State.READY, ""),
        (world(ELSEWHERE, reports={NODE: report(settings=None)}), NOW, State.READY, ""),
        (world(reports={NODE: report(settings=None)}), NOW, State.READY, ""),
        (world(DISABLED), NOW, State.REMOVING, "NotRemoved"),
        (
            world(GOOD, pods={NODE: unready("", uid="a")}, warnings={"a": PodWarning("FailedMount", "x")}),
            NOW, State.REPAIRING, "FailedMount",
        ),
    ],
)  # fmt: skip
def test_each_node_is_judged_by_its_own_objects(observed: World, since: Any, state: State, reason: str) -> None:
    unwell_since = {} if since is None else {NODE: since}
    (verdict,) = plan.judge_fleet(observed, planned(observed), unwell_since, NOW).verdicts
    assert (verdict.node, verdict.state, verdict.reason) == (NODE, state, reason)


def test_a_fleet_omits_deleted_nodes() -> None:
    reports = {NODE: report(), "gone": report("gone", version="0")}
    observed = world(DISABLED, reports=reports)
    made = plan.judge_fleet(observed, planned(observed), {}, NOW)
    assert (made.installed, made.version, made.removal) == (False, "0.1.0", "spec.cni.enabled is false")
    assert plan.judge_fleet(world(GOOD), planned(world(GOOD)), {}, NOW).installed


def test_a_resource_without_a_generation_is_at_its_first() -> None:
    young = resource()
    del young["metadata"]["generation"]
    observed = world(young, reports={NODE: report(settings=SETTINGS._replace(generation=1))})
    (verdict,) = plan.judge_fleet(observed, planned(observed), {}, NOW).verdicts
    assert verdict.state is State.READY

"""Plans from the observed state: the active control plane, the desired state of nodes and DaemonSet, statuses. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from installer.config.active import find_active_control_plane, is_being_deleted
from installer.config.control_plane import ControlPlaneSpec, InvalidControlPlaneError, read_control_plane
from installer.controller import pod_template, status
from installer.controller.control_plane_events import build_events
from installer.controller.status import Fault, Fleet, build_invalid_fault, build_superseded_fault
from installer.fleet.node_case import Desired, Observation
from installer.fleet.node_health import is_judged, judge
from installer.fleet.objects import Settings, spec_changed
from installer.fleet.reasons import WAITING_FOR_UPDATE
from installer.fleet.rollouts import is_held_up, most_unavailable, template_generation
from installer.fleet.selection import unparked
from installer.kube.names import DAEMONSET

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from installer.controller.control_plane_events import Event
    from installer.fleet.node_health import NodeHealth
    from installer.fleet.objects import AgentPod, Node, Report
    from installer.fleet.pod_diagnosis import PodWarning


@dataclass(frozen=True)
class World:
    """The observed state at one moment.

    Attributes:
        daemonset: the agents'; None: it does not exist.
        reports: the agents' reports, by node.
        pods: the agents' pods, by node.
        warnings: the latest warning Events, by the pod's uid.
        unreported: the IstioCNINodes without an agent's report, by node.
    """

    resources: Sequence[Mapping[str, Any]]
    daemonset: Mapping[str, Any] | None
    nodes: Mapping[str, Node]
    reports: Mapping[str, Report]
    pods: Mapping[str, AgentPod]
    warnings: Mapping[str, PodWarning] = field(default_factory=dict)
    unreported: Mapping[str, Report] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """The desired state.

    Attributes:
        active: the active control plane; None: there is none.
        spec: its settings; None: missing or invalid.
        faults: why it cannot be applied.
        installed: whether the plugin is installed on nodes.
        removal: why it is not; empty if it is.
    """

    active: Mapping[str, Any] | None
    spec: ControlPlaneSpec | None
    faults: tuple[Fault, ...]
    installed: bool
    removal: str

    def is_active(self, resource: Mapping[str, Any]) -> bool:
        """Return whether an IstioControlPlane is the active one."""
        return self.active is not None and self.active["metadata"]["uid"] == resource["metadata"]["uid"]


class StatusChange(NamedTuple):
    """The writes about an IstioControlPlane: a merge patch of its status, then Events."""

    resource: Mapping[str, Any]
    patch: dict[str, Any]
    events: tuple[Event, ...]


def make_plan(world: World, namespace: str) -> Plan:
    """Make the plan of a controller in this namespace."""
    active = find_active_control_plane(world.resources)
    if active is None:
        parked = world.daemonset is None or pod_template.is_parked(world.daemonset)
        return Plan(None, None, (), not parked, "no IstioControlPlane is left" if parked else "")
    spec: ControlPlaneSpec | None = None
    faults: list[Fault] = []
    try:
        spec = read_control_plane(active)
        faults += _faults(spec, world, namespace)
    except InvalidControlPlaneError as error:
        faults.append(build_invalid_fault(error.problems))
    if is_being_deleted(active):
        return Plan(active, spec, (), installed=False, removal="the resource is deleted")
    disabled = spec is not None and not spec.enabled
    return Plan(active, spec, tuple(faults), not disabled, "spec.cni.enabled is false" if disabled else "")


def desired_daemonset(world: World, plan: Plan, *, park: bool) -> pod_template.Wish | None:
    """Make the desired state of the DaemonSet, parked if `park`; None if no write is needed.

    Raises:
        RolloutError: if the DaemonSet is not one of this chart's.
    """
    observed = world.daemonset
    if observed is None:
        return None
    if plan.active is None:
        wish = pod_template.build_wish(observed, None, parked=pod_template.is_parked(observed))
        if not pod_template.is_of_a_resource(observed) and not pod_template.owns_more(observed, wish):
            return None
    elif is_being_deleted(plan.active):
        if not park or pod_template.is_parked(observed):
            return None
        wish = pod_template.build_wish(
            observed, None, parked=True
        )  # the resource's values may be the reason for the refusal
    elif plan.spec is None or plan.faults:
        return None  # it keeps the values of the last valid resource
    else:
        wish = pod_template.build_wish(observed, plan.spec, parked=False)
    return None if pod_template.is_fulfilled(observed, wish) else wish


def judge_fleet(world: World, plan: Plan, unhealthy_since: Mapping[str, datetime], now: datetime) -> Fleet:
    """Judge all nodes that the active control plane manages.

    Nodes that `unhealthy_since` lacks were healthy until now.
    """
    desired = _desired(world, plan)
    verdicts = []
    for name in managed_nodes(world, plan):
        pod, report = world.pods.get(name), world.reports.get(name) or world.unreported.get(name)
        warning = world.warnings.get(pod.uid) if pod else None
        observation = Observation(name, report, pod, world.nodes.get(name), warning)
        if is_judged(observation, desired):
            verdicts.append(judge(observation, desired, now, unhealthy_since.get(name, now)))
    releases = {each.version for name, each in world.reports.items() if name in world.nodes}
    waits = world.daemonset is not None and is_held_up(world.daemonset)
    most = most_unavailable(world.daemonset) if waits and world.daemonset else 0
    return Fleet(plan.installed, verdicts, ", ".join(sorted(releases - {""})), plan.removal, most)


def update_unhealthy_since(
    before: Mapping[str, datetime], verdicts: Iterable[NodeHealth], now: datetime
) -> dict[str, datetime]:
    """Return since when nodes have been unhealthy, by name. Waiting for the rolling update does not count.

    `before` is the previous result.
    """
    unhealthy = (each for each in verdicts if not each.state.is_healthy and each.reason != WAITING_FOR_UPDATE)
    return {each.node: before.get(each.node, now) for each in unhealthy}


def managed_nodes(world: World, plan: Plan) -> list[str]:
    """Return the nodes that get or lose the plugin, sorted."""
    agents = nodes_with_agents(world)
    return sorted(agents | ({*world.nodes} & {*world.reports} if not plan.installed else set()))


def nodes_with_agents(world: World, *, besides: Iterable[Mapping[str, str]] = ()) -> set[str]:
    """Name the nodes that have or get an agent; a parked DaemonSet is treated as not parked (F40).

    `besides` are taints to assume on all nodes besides their own.
    """
    if world.daemonset is None:
        return set()
    selection = unparked(world.daemonset)
    taints = tuple(besides)
    return {name for name, node in world.nodes.items() if selection.has_agent(node, world.pods.get(name), taints)}


def status_changes(
    world: World, plan: Plan, fleet: Fleet, faults: Sequence[Fault], now: datetime
) -> Iterator[StatusChange]:
    """Find the IstioControlPlanes whose status changes.

    `faults` say why the active one could not be applied, besides those of the plan.
    """
    for resource in world.resources:
        is_active, terminating = plan.is_active(resource), is_being_deleted(resource)
        if terminating and not is_active:
            continue
        before = resource.get("status") or {}
        own = [*faults_of(resource, plan), *(faults if is_active else ())]
        notes = plan.spec.notes if is_active and plan.spec else ()
        new = status.build_status(resource, fleet if is_active else None, own, now, before, notes=notes)
        if patch := status.build_patch(new, before):
            yield StatusChange(resource, patch, tuple(build_events(before, new, terminating=terminating)))


def faults_of(resource: Mapping[str, Any], plan: Plan) -> Sequence[Fault]:
    """Return why a resource is not applied; empty if it is."""
    if plan.active is None or plan.is_active(resource):
        return plan.faults
    return (build_superseded_fault(plan.active),)


def _desired(world: World, plan: Plan) -> Desired:
    template = template_generation(world.daemonset) if world.daemonset else ""
    if plan.active is None:
        return Desired(plan.installed, None, template, expects_agent=plan.installed)
    metadata = plan.active["metadata"]
    settings = Settings(metadata["uid"], metadata.get("generation", 1))
    return Desired(
        plan.installed,
        settings,
        template,
        any_settings=plan.spec is None or bool(plan.faults),
        since=spec_changed(plan.active),
    )


def _faults(spec: ControlPlaneSpec, world: World, namespace: str) -> Iterator[Fault]:
    if spec.namespace not in (None, namespace):
        yield Fault(
            "WrongNamespace",
            f"spec.cni.components.cni.namespace: saw {spec.namespace}, expected {namespace}, where the chart has put the "
            f"agents; leave it out, or move them: helm upgrade --set cni.namespace={spec.namespace}",
        )
    if world.daemonset is None:
        yield Fault(
            "DaemonSetNotFound", f"there is no DaemonSet {DAEMONSET} in namespace {namespace}; helm upgrade restores it"
        )

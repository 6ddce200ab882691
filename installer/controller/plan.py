"""Plans from the observed state: the active control plane, the desired state of nodes and DaemonSet, statuses. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from installer.config.active import find_active_control_plane, is_being_deleted
from installer.config.control_plane import ControlPlaneSpec, InvalidControlPlaneError, read_control_plane
from installer.controller import pod_template, status
from installer.controller.events import events
from installer.controller.status import Fault, Fleet, invalid, superseded
from installer.fleet.node_health import WAITING_FOR_UPDATE, Desired, Observation, judge
from installer.fleet.objects import Settings, spec_changed
from installer.fleet.rollouts import is_held_up, most_unavailable, template_generation
from installer.kube.names import DAEMONSET

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from installer.controller.events import Event
    from installer.fleet.node_health import NodeHealth, PodWarning
    from installer.fleet.objects import AgentPod, Node, Report


@dataclass(frozen=True)
class World:
    """The observed state at one moment.

    Attributes:
        resources: the IstioControlPlanes.
        daemonset: the agents'; None: it does not exist.
        nodes: the Nodes.
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


def plan(world: World, namespace: str) -> Plan:
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
        faults.append(invalid(error.problems))
    if is_being_deleted(active):
        return Plan(active, spec, (), installed=False, removal="the resource is deleted")
    disabled = spec is not None and not spec.enabled
    return Plan(active, spec, tuple(faults), not disabled, "spec.cni.enabled is false" if disabled else "")


def daemonset(world: World, made: Plan, *, park: bool) -> pod_template.Wish | None:
    """Make the desired state of the DaemonSet.

    Args:
        world: what is seen.
        made: the plan.
        park: whether to park it now.

    Returns:
        None if no write is needed.

    Raises:
        RolloutError: if the DaemonSet is not one of this chart's.
    """
    seen = world.daemonset
    if seen is None:
        return None
    if made.active is None:
        wished = pod_template.wish(seen, None, parked=pod_template.is_parked(seen))
        if not pod_template.is_of_a_resource(seen) and not pod_template.owns_more(seen, wished):
            return None
    elif is_being_deleted(made.active):
        if not park or pod_template.is_parked(seen):
            return None
        wished = pod_template.wish(seen, None, parked=True)  # the resource's values may be the reason for the refusal
    elif made.spec is None or made.faults:
        return None  # it keeps the values of the last valid resource
    else:
        wished = pod_template.wish(seen, made.spec, parked=False)
    return None if pod_template.is_fulfilled(seen, wished) else wished


def fleet(world: World, made: Plan, unhealthy_since: Mapping[str, datetime], now: datetime) -> Fleet:
    """Judge all nodes that the active control plane manages.

    Args:
        world: what is seen.
        made: the plan.
        unhealthy_since: when nodes became unhealthy; missing nodes were healthy until now.
        now: the time.
    """
    desired = _desired(world, made)
    verdicts = []
    for name in concerned(world, made):
        pod, report = world.pods.get(name), world.reports.get(name) or world.unreported.get(name)
        warning = world.warnings.get(pod.uid) if pod else None
        seen = Observation(name, report, pod, world.nodes.get(name), warning)
        verdicts.append(judge(seen, desired, now, unhealthy_since.get(name, now)))
    releases = {each.version for name, each in world.reports.items() if name in world.nodes}
    waits = world.daemonset is not None and is_held_up(world.daemonset)
    most = most_unavailable(world.daemonset) if waits and world.daemonset else 0
    return Fleet(made.installed, verdicts, ", ".join(sorted(releases - {""})), made.removal, most)


def unhealthy_since(
    before: Mapping[str, datetime], verdicts: Iterable[NodeHealth], now: datetime
) -> dict[str, datetime]:
    """Return since when nodes have been unhealthy, by name. Waiting for the rolling update does not count.

    Args:
        before: the previous result.
        verdicts: the current verdicts.
        now: the time.
    """
    unhealthy = (each for each in verdicts if not each.state.is_healthy and each.reason != WAITING_FOR_UPDATE)
    return {each.node: before.get(each.node, now) for each in unhealthy}


def concerned(world: World, made: Plan) -> list[str]:
    """Return the nodes that get or lose the plugin, sorted."""
    agents = with_agents(world)
    return sorted(agents | ({*world.nodes} & {*world.reports} if not made.installed else set()))


def with_agents(world: World, *, besides: Iterable[Mapping[str, str]] = ()) -> set[str]:
    """Name the nodes that have or get an agent; a parked DaemonSet is treated as not parked (F40).

    Args:
        world: what is seen.
        besides: taints to assume on all nodes besides their own.
    """
    if world.daemonset is None:
        return set()
    selection = pod_template.unparked(world.daemonset)

    taints = tuple(besides)
    return {name for name, node in world.nodes.items() if selection.has_agent(node, world.pods.get(name), taints)}


def status_changes(
    world: World, made: Plan, judged: Fleet, faults: Sequence[Fault], now: datetime
) -> Iterator[StatusChange]:
    """Find the IstioControlPlanes whose status changes.

    Args:
        world: what is seen.
        made: the plan.
        judged: the nodes.
        faults: why the active one could not be applied, besides those of the plan.
        now: the time.
    """
    for resource in world.resources:
        is_active, going = made.is_active(resource), is_being_deleted(resource)
        if going and not is_active:
            continue
        before = resource.get("status") or {}
        own = [*faults_of(resource, made), *(faults if is_active else ())]
        notes = made.spec.notes if is_active and made.spec else ()
        written = status.status(resource, judged if is_active else None, own, now, before, notes=notes)
        if patch := status.patch(written, before):
            yield StatusChange(resource, patch, tuple(events(before, written, going=going)))


def faults_of(resource: Mapping[str, Any], made: Plan) -> Sequence[Fault]:
    """Return why a resource is not applied; empty if it is."""
    if made.active is None or made.is_active(resource):
        return made.faults
    return (superseded(made.active),)


def _desired(world: World, made: Plan) -> Desired:
    template = template_generation(world.daemonset) if world.daemonset else ""
    if made.active is None:
        return Desired(made.installed, None, template)
    metadata = made.active["metadata"]
    settings = Settings(metadata["uid"], metadata.get("generation", 1))
    return Desired(
        made.installed,
        settings,
        template,
        any_settings=made.spec is None or bool(made.faults),
        since=spec_changed(made.active),
    )


def _faults(read: ControlPlaneSpec, world: World, namespace: str) -> Iterator[Fault]:
    if read.namespace not in (None, namespace):
        yield Fault(
            "WrongNamespace",
            f"spec.cni.components.cni.namespace: saw {read.namespace}, expected {namespace}, where the chart has put the "
            f"agents; leave it out, or move them: helm upgrade --set cni.namespace={read.namespace}",
        )
    if world.daemonset is None:
        yield Fault(
            "DaemonSetNotFound",
            f"there is no DaemonSet {DAEMONSET} in namespace {namespace}; helm upgrade restores it",
        )

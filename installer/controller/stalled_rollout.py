"""Decides which agents to replace when the rolling update stalls, so that it passes nodes that were not ready before. Pure.

Kubernetes counts a node without a ready agent against `maxUnavailable` whatever the reason, and replaces old agents that are
not ready at once: a rollout that repairs their nodes goes on by itself. Nodes that it does not repair, such as a pool whose
runtime reads another directory, or a node that is off, would block all others for ever. So this module does not count a node
that was not ready before its new agent was created. It must have been so for longer than clocks may differ: otherwise a
template that no node can start would look like such a node. The old agents of all other nodes are deleted, as many at a time
as `maxUnavailable` allows, and the DaemonSet replaces them. Until the first new agent is ready, that is one at a time: a
template that no node can start goes no further.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from installer.controller import pod_template
from installer.fleet.rollouts import is_held_up, is_older, most_unavailable, template_generation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from installer.controller.plan import World
    from installer.fleet.objects import AgentPod, Report

# For a new agent to become ready, and for an old one to terminate after its grace period.
PATIENCE = timedelta(seconds=30)


class Next(NamedTuple):
    """The agents to delete now, and whether the rollout still waits for a node."""

    agents: Sequence[AgentPod]
    waits: bool


def find_next(world: World, nodes: Iterable[str], now: datetime) -> Next:
    """Find the agents to delete now, so that the DaemonSet replaces them.

    `nodes` are those that get an agent.
    """
    daemonset = world.daemonset
    if daemonset is None or pod_template.is_parked(daemonset) or not is_held_up(daemonset):
        return Next((), waits=False)
    template = template_generation(daemonset)
    pods = {name: world.pods.get(name) for name in nodes}
    passed = set(_passed(pods, template, world.reports, now))
    if not template or not passed:
        return Next((), waits=True)
    ready = [pod for _, pod in sorted(pods.items()) if pod and pod.ready and not pod.terminating]
    missing = [pod for name, pod in pods.items() if name not in passed and pod not in ready]
    share = most_unavailable(daemonset) if any(pod.template == template for pod in ready) else 1
    old = [pod for pod in ready if pod.template != template]
    waits = any(pod and not pod.terminating and now - pod.created >= PATIENCE for pod in missing)
    return Next(old[: max(share - len(missing), 0)], waits)


def _passed(
    pods: Mapping[str, AgentPod | None], template: str, reports: Mapping[str, Report], now: datetime
) -> Iterable[str]:
    """Yield the nodes without a ready agent for a reason that is older than the new template."""
    for name, pod in pods.items():
        if pod and pod.template != template:
            is_off = pod.ends is not None and now > pod.ends + PATIENCE
            if is_off:
                yield name
        elif pod and not pod.ready and not pod.terminating:
            report = reports.get(name)
            if report and report.ready is False and report.since and is_older(report.since, pod.created):
                yield name

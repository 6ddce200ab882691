"""Finds faults of the cluster as a whole, unavailable data and notes, each with its remedy. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from typing import TYPE_CHECKING

from installer.cniconfig.meshes import OTHERS
from installer.fleet.node_health import State
from installer.fleet.reasons import OUTDATED_SETTINGS, WAITING_FOR_UPDATE
from installer.fleet.rollouts import ROLLOUT_BLOCKED
from installer.kube.names import CONTROLLER, DAEMONSET
from installer.status.grants import grant_commands
from installer.status.istio_agent import how_to_remove, how_to_replace, istios, ours, title
from installer.status.model import Cause, Finding, Severity, Unavailable
from installer.terminal.words import counted, kubectl, listed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from installer.status.model import AgentDaemonSet, Answers, ControlPlane, NodeStatus, Object

NAMED = 3  # nodes with the same fault to name; the others are counted
MESSAGES = 10  # different messages of one reason to show; the nodes with others are counted
SETTINGS = "InvalidSettings"  # an agent's reason: the resource is invalid, and the previous settings stay
CRDS = "Apply the chart's: kubectl apply --server-side --force-conflicts --filename crds/"


def collect_findings(
    answers: Answers,
    planes: Sequence[ControlPlane],
    agents: AgentDaemonSet | None,
    nodes: Sequence[NodeStatus],
    *,
    out: bool,
) -> tuple[Finding, ...]:
    """Find them, errors first.

    `out`: the plugin is being removed from all nodes.
    """
    found = [
        *_find_plane_faults(planes, nodes),
        *_find_istios_agents(answers, agents),
        *_find_missing_parts(answers, planes, agents, out=out),
        *_find_node_warnings(planes, nodes),
        *_find_rollout_blocks(answers, planes, agents, nodes),
        *_note_node_differences(nodes),
        *_note_removal(planes, agents, nodes, out=out),
        *_find_unread_lists(answers),
    ]
    return tuple(sorted(found, key=lambda each: tuple(Severity).index(each.severity)))


def _find_plane_faults(planes: Sequence[ControlPlane], nodes: Sequence[NodeStatus]) -> Iterator[Finding]:
    ill = any(not each.state.is_healthy for each in nodes)
    for plane in planes:
        edit = f"kubectl --namespace {plane.namespace} edit istiocontrolplane {plane.name}"
        for problem in plane.problems:
            yield Finding(
                Severity.ERROR,
                f"{plane.title}: {problem}",
                f"{'The last good settings stay in force. ' if plane.active else ''}Correct it: {edit}",
            )
        if plane.active:
            # Its reasons Nodes... concern nodes, which have their own findings here.
            if plane.status == "ERROR" and not plane.problems and not (ill and plane.degraded.startswith("Nodes")):
                yield Finding(Severity.ERROR, f"{plane.title}: the controller reports: {plane.message or 'ERROR'}")
            continue
        older = planes[0].title
        if plane.conflicts:
            differs = listed(plane.conflicts)
            yield Finding(
                Severity.ERROR,
                f"{plane.title} is ignored, as {older} is older; they differ in {differs}",
                f"Delete the one that you do not want, or remove {differs} from this one: {edit}",
            )
        else:
            yield Finding(Severity.INFO, f"{plane.title} is ignored, as {older} is older")


def _find_istios_agents(answers: Answers, agents: AgentDaemonSet | None) -> Iterator[Finding]:
    """Report Istio's own agents: beside ours, both overwrite the same plugin file and the same entry."""
    for each in () if isinstance(answers.daemonsets, Unavailable) else istios(answers.daemonsets):
        message = f"Istio's own CNI node agent is installed in {title(each)}"
        if agents is None:
            yield Finding(Severity.ERROR, f"{message}; this chart's is not", how_to_replace(each))
        else:
            beside = f"beside this chart's in {agents.namespace}: both overwrite the plugin file and its entry"
            yield Finding(Severity.ERROR, f"{message} {beside}", how_to_remove(each))


def _find_missing_parts(
    answers: Answers, planes: Sequence[ControlPlane], agents: AgentDaemonSet | None, *, out: bool
) -> Iterator[Finding]:
    if agents is None and not isinstance(answers.daemonsets, Unavailable):
        if answers.namespace is not None:
            yield Finding(
                Severity.ERROR,
                f"namespace {answers.namespace} has no DaemonSet {DAEMONSET}",
                "Without -n it is found wherever it is: install-cni status",
            )
        elif not out and not istios(answers.daemonsets):
            yield Finding(
                Severity.ERROR,
                f"the cluster has no DaemonSet {DAEMONSET}",
                "Install the chart: helm install istio-cni charts/istio-cni --namespace istio-system --create-namespace",
            )
        elif planes and planes[0].terminating:
            yield Finding(
                Severity.ERROR,
                f"{planes[0].title} is being deleted, and neither agents nor controller run to complete that",
                f"Remove its finalizer: kubectl --namespace {planes[0].namespace} patch istiocontrolplane {planes[0].name} "
                """--type merge --patch '{"metadata": {"finalizers": null}}'""",
            )
        return
    if not isinstance(answers.daemonsets, Unavailable) and len(own := ours(answers.daemonsets)) > 1:
        where = listed(sorted(each["metadata"]["namespace"] for each in own))
        yield Finding(
            Severity.ERROR,
            f"DaemonSet {DAEMONSET} exists more than once, in {where}: two agents on a node wait for each other",
            "Uninstall all releases of the chart but one: helm list --all-namespaces",
        )
    missing = [each.resource for each in _unanswered(answers) if each.cause is Cause.NO_DEFINITION]
    if missing:
        yield Finding(
            Severity.ERROR,
            f"the API server does not know {listed(missing)}: the chart's settings are in force, or nodes do not report",
            CRDS,
        )
    yield from _find_controller_faults(answers, planes, agents)


def _find_controller_faults(
    answers: Answers, planes: Sequence[ControlPlane], agents: AgentDaemonSet | None
) -> Iterator[Finding]:
    if isinstance(answers.controllers, Unavailable) or agents is None:
        return
    if not answers.controllers:
        if planes:
            yield Finding(
                Severity.ERROR,
                f"no Deployment {CONTROLLER} is in {agents.namespace}: image, directories and resources of {planes[0].title} "
                "do not reach the agents, it gets no status, and its deletion does not complete",
                "Have the chart install it: helm upgrade --set cni.controller.enabled=true",
            )
        return
    if not _is_available(answers.controllers):
        yield Finding(
            Severity.ERROR,
            f"the controller does not run: no pod of the Deployment {CONTROLLER} is available",
            f"Look into it: {kubectl(agents.namespace, f'describe pods --selector k8s-app={CONTROLLER}')}",
        )


def _find_node_warnings(planes: Sequence[ControlPlane], nodes: Sequence[NodeStatus]) -> Iterator[Finding]:
    """Report faults of nodes that redirect pods: once for all nodes with the same message."""
    where: dict[str, dict[str, list[str]]] = {}
    for node in nodes:
        if node.warning and not (node.warning.reason == SETTINGS and _is_covered(planes, node)):
            where.setdefault(node.warning.reason, {}).setdefault(node.warning.message, []).append(node.name)
    for reason, by_message in where.items():
        messages = [*by_message.items()]
        for message, names in messages[:MESSAGES]:
            others = [f"{counted(len(names) - NAMED, 'more node')}"] if len(names) > NAMED else []
            yield Finding(Severity.ERROR, f"{listed(names[:NAMED] + others)}: {message}")
        number = sum(len(names) for _, names in messages[MESSAGES:])
        if number:
            verb = "says" if number == 1 else "say"
            yield Finding(
                Severity.ERROR,
                f"{counted(number, 'more node')} {verb} {reason}",
                "Look at each: kubectl get istiocninodes",
            )


def _is_covered(planes: Sequence[ControlPlane], node: NodeStatus) -> bool:
    """Return whether a finding about the resource covers this, or the node has not observed its correction yet."""
    return node.state is not State.READY or any(
        each.active and (each.problems or each.status == "ERROR") for each in planes
    )


def _note_removal(
    planes: Sequence[ControlPlane], agents: AgentDaemonSet | None, nodes: Sequence[NodeStatus], *, out: bool
) -> Iterator[Finding]:
    if out and not planes and agents and not agents.terminating and all(each.state is State.REMOVED for each in nodes):
        yield Finding(
            Severity.INFO,
            "the plugin was removed together with its IstioControlPlane",
            "To install it again, apply one with spec.cni.enabled true.",
        )


def _find_rollout_blocks(
    answers: Answers, planes: Sequence[ControlPlane], agents: AgentDaemonSet | None, nodes: Sequence[NodeStatus]
) -> Iterator[Finding]:
    """Report the nodes that block the rollout, or that the controller passes."""
    waiting = [each for each in nodes if each.reason == WAITING_FOR_UPDATE]
    unready = [
        each
        for each in nodes
        if not each.state.is_healthy and each.reason not in (WAITING_FOR_UPDATE, OUTDATED_SETTINGS)
    ]
    if agents is None or not agents.held_up or not waiting or not unready:
        return
    more = agents.unavailable + agents.most_unavailable
    command = (
        f"helm upgrade istio-cni charts/istio-cni --namespace {agents.namespace} --reuse-values "
        f"--set cni.maxUnavailable={more}"
    )
    active = [each for each in planes if each.active]
    passes = _is_available(answers.controllers) and not any(each.degraded == ROLLOUT_BLOCKED for each in active)
    blocking = [each for each in unready if not (passes and each.was_unready)]
    if not blocking:
        # Without an IstioControlPlane the controller cannot report that it lacks the right.
        advice = "" if active else f". Where their number stays, as before Kubernetes 1.30, let it pass them: {command}"
        yield Finding(
            Severity.INFO,
            f"the rollout passes {_first_of(unready)}, not ready since before it: the controller goes on with "
            f"{counted(len(waiting), 'agent')} still to be replaced",
            f"Make these nodes ready; the others do not wait for them{advice}",
        )
        return
    yield Finding(
        Severity.INFO,
        f"the rollout waits for {_first_of(blocking)}, with "
        f"{counted(len(waiting), 'agent')} still to be replaced: at most {counted(agents.most_unavailable, 'node')} may be "
        f"without a ready agent (cni.maxUnavailable), and {agents.unavailable:,} {'is' if agents.unavailable == 1 else 'are'}",
        f"Make these nodes ready, or let the rollout pass them: {command}",
    )


def _first_of(nodes: Sequence[NodeStatus]) -> str:
    """Name the first node with its reason, and count the others."""
    first, others = nodes[0], [counted(len(nodes) - 1, "more node")] if len(nodes) > 1 else []
    return f"{listed([first.name, *others])} ({first.reason}: {first.message})"


def _is_available(controllers: Sequence[Object] | Unavailable) -> bool:
    return not isinstance(controllers, Unavailable) and any(
        (each.get("status") or {}).get("availableReplicas") for each in controllers
    )


def _note_node_differences(nodes: Sequence[NodeStatus]) -> Iterator[Finding]:
    present = [each for each in nodes if each.state is not State.REMOVED]
    lacking = Counter((feature, each.backend) for each in present for feature in each.missing_features)
    for (feature, backend), number in sorted(lacking.items()):
        verb = "1 node lacks" if number == 1 else f"{number:,} nodes lack"
        yield Finding(Severity.INFO, f"{verb} {feature} ({backend}): pods that ask for it fail there")
    for mesh, number in sorted(Counter(mesh for each in present for mesh in each.meshes).items()):
        verb = "1 node runs" if number == 1 else f"{number:,} nodes run"
        yield Finding(
            Severity.INFO,
            f"{verb} {mesh} ({OTHERS.get(mesh, 'another mesh')}) in the same chain: a pod that both meshes have injected is "
            "redirected twice",
            "Have each namespace injected by one mesh alone.",
        )
    versions = Counter(each.version for each in present if each.version)
    if len(versions) > 1 and all(each.state is State.READY for each in nodes):
        counts = ", ".join(f"{version} on {number:,}" for version, number in sorted(versions.items()))
        yield Finding(Severity.INFO, f"agents of several releases run: {counts}")


def _find_unread_lists(answers: Answers) -> Iterator[Finding]:
    refused = [each for each in _unanswered(answers) if each.cause is Cause.FORBIDDEN]
    if refused:
        names = listed([each.resource for each in refused])
        yield Finding(Severity.UNKNOWN, f"missing the right to list {names}", grant_commands(refused))
    for each in _unanswered(answers):
        if each.cause is Cause.FAILED:
            yield Finding(Severity.UNKNOWN, f"{each.resource} cannot be read: {each.message}")


def _unanswered(answers: Answers) -> list[Unavailable]:
    answers_by_list = (getattr(answers, each.name) for each in fields(answers))
    return [each for each in answers_by_list if isinstance(each, Unavailable)]

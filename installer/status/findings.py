"""What is wrong with the cluster as a whole, what could not be asked, what is worth knowing; and what to do. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from typing import TYPE_CHECKING

from installer.objects import CONTROLLER, DAEMONSET
from installer.status.model import Finding, State, Unasked, Weight, Why
from installer.status.rights import to_ask_for
from installer.status.words import listed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from installer.status.model import Agents, Answers, Node, Plane

CRDS = "Apply the chart's: kubectl apply --server-side --force-conflicts --filename crds/"


def findings(
    answers: Answers, planes: Sequence[Plane], agents: Agents | None, nodes: Sequence[Node], *, out: bool
) -> tuple[Finding, ...]:
    """Find them, the wrong ones first.

    Args:
        answers: what the API server has said.
        planes: judged, the one that counts first.
        agents: the DaemonSet, if there is one.
        nodes: judged.
        out: whether the plugin is to be out of all nodes.
    """
    found = [*_of_planes(planes, nodes), *_of_parts(answers, planes, agents, out=out), *_of_nodes(nodes)]
    found += _not_answered(answers)
    return tuple(sorted(found, key=lambda each: tuple(Weight).index(each.weight)))


def _of_planes(planes: Sequence[Plane], nodes: Sequence[Node]) -> Iterator[Finding]:
    ill = any(not each.state.is_well for each in nodes)
    for plane in planes:
        edit = f"kubectl --namespace {plane.namespace} edit istiocontrolplane {plane.name}"
        for problem in plane.problems:
            yield Finding(
                Weight.WRONG,
                f"{plane.title}: {problem}",
                f"{'The last good settings stay in force. ' if plane.counts else ''}Correct it: {edit}",
            )
        if plane.counts:
            # Its reasons Nodes... are about nodes, which are named here themselves.
            if plane.status == "ERROR" and not plane.problems and not (ill and plane.degraded.startswith("Nodes")):
                yield Finding(Weight.WRONG, f"{plane.title}: the controller says: {plane.message or 'ERROR'}")
            continue
        older = planes[0].title
        if plane.contradicts:
            differs = listed(plane.contradicts)
            yield Finding(
                Weight.WRONG,
                f"{plane.title} does not count, as {older} is older, and contradicts it in {differs}",
                f"Delete the one that you do not want, or take {differs} out of this one: {edit}",
            )
        else:
            yield Finding(Weight.NOTE, f"{plane.title} does not count, as {older} is older")


def _of_parts(answers: Answers, planes: Sequence[Plane], agents: Agents | None, *, out: bool) -> Iterator[Finding]:
    if agents is None and not isinstance(answers.daemonsets, Unasked):
        if not out:
            yield Finding(
                Weight.WRONG,
                f"the cluster has no DaemonSet {DAEMONSET}",
                "Install the chart: helm install istio-cni charts/istio-cni --namespace istio-system --create-namespace",
            )
        elif planes[0].leaving:
            yield Finding(
                Weight.WRONG,
                f"{planes[0].title} is being deleted, and neither agents nor controller are there to end it",
                f"Let it go: kubectl --namespace {planes[0].namespace} patch istiocontrolplane {planes[0].name} "
                """--type merge --patch '{"metadata": {"finalizers": null}}'""",
            )
        return
    if not isinstance(answers.daemonsets, Unasked) and len(answers.daemonsets) > 1:
        where = listed(sorted(each["metadata"]["namespace"] for each in answers.daemonsets))
        yield Finding(
            Weight.WRONG,
            f"more than one DaemonSet {DAEMONSET} is there, in {where}: two agents on a node wait for each other",
            "Uninstall all releases of the chart but one: helm list --all-namespaces",
        )
    missing = [each.resource for each in _unanswered(answers) if each.why is Why.NO_DEFINITION]
    if missing:
        yield Finding(
            Weight.WRONG,
            f"the API server does not know {listed(missing)}: the chart's settings are in force, or nodes do not report",
            CRDS,
        )
    yield from _of_controller(answers, planes, agents)


def _of_controller(answers: Answers, planes: Sequence[Plane], agents: Agents | None) -> Iterator[Finding]:
    if isinstance(answers.controllers, Unasked) or agents is None:
        return
    if not answers.controllers:
        if planes:
            yield Finding(
                Weight.WRONG,
                f"no Deployment {CONTROLLER} is in {agents.namespace}: image, directories and resources of {planes[0].title} "
                "do not reach the agents, it gets no status, and deleting it does not end",
                "Have the chart install it: helm upgrade --set cni.controller.enabled=true",
            )
        return
    if not any((each.get("status") or {}).get("availableReplicas") for each in answers.controllers):
        yield Finding(
            Weight.WRONG,
            f"the controller does not run: no pod of the Deployment {CONTROLLER} is available",
            f"Ask why: kubectl --namespace {agents.namespace} describe pods --selector k8s-app={CONTROLLER}",
        )


def _of_nodes(nodes: Sequence[Node]) -> Iterator[Finding]:
    present = [each for each in nodes if each.state is not State.REMOVED]
    lacking = Counter((feature, each.backend) for each in present for feature in each.lacks)
    for (feature, backend), number in sorted(lacking.items()):
        verb = "1 node lacks" if number == 1 else f"{number:,} nodes lack"
        yield Finding(Weight.NOTE, f"{verb} {feature} ({backend}): pods that ask for it fail there")
    versions = Counter(each.version for each in present if each.version)
    if len(versions) > 1 and all(each.state is State.READY for each in nodes):
        counts = ", ".join(f"{version} on {number:,}" for version, number in sorted(versions.items()))
        yield Finding(Weight.NOTE, f"agents of more than one release run: {counts}")


def _not_answered(answers: Answers) -> Iterator[Finding]:
    refused = [each for each in _unanswered(answers) if each.why is Why.FORBIDDEN]
    if refused:
        names = listed([each.resource for each in refused])
        yield Finding(Weight.UNASKED, f"the right is missing to list {names}", to_ask_for(refused))
    for each in _unanswered(answers):
        if each.why is Why.FAILED:
            yield Finding(Weight.UNASKED, f"{each.resource} could not be asked for: {each.message}")


def _unanswered(answers: Answers) -> list[Unasked]:
    given = (getattr(answers, each.name) for each in fields(answers))
    return [each for each in given if isinstance(each, Unasked)]

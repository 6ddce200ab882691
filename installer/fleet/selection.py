"""Decides whether a DaemonSet runs a pod on a node, as Kubernetes' DaemonSet controller does (F40). Pure.

Source: Kubernetes, `NodeShouldRunDaemonPod` and `AddOrUpdateDaemonPodTolerations` (pkg/controller/daemon), node affinity and
taints (component-helpers, scheduling/corev1). A DaemonSet's pods pass the scheduler's other checks or wait for it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from installer.fleet.objects import pod_spec
from installer.kube.names import PARKED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from installer.fleet.objects import AgentPod, Node

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_NAME = "metadata.name"  # the one field of a node that a term may name
_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9])?")  # of a label
_NUMBER = re.compile(r"[0-9]+", re.ASCII)
_MOST = 2**63 - 1  # as Go parses numbers


class Requirement(NamedTuple):
    """A requirement on a label, or on the name, of a node."""

    key: str
    operator: str
    values: tuple[str, ...]


class Term(NamedTuple):
    """Requirements on a node's labels, and on its name as the label `metadata.name`; all must hold."""

    labels: tuple[Requirement, ...]
    fields: tuple[Requirement, ...]


class Runs(NamedTuple):
    """Whether a new pod starts on a node, and whether a running one stays."""

    starts: bool
    stays: bool


class Selection(NamedTuple):
    """The nodes that a pod template selects.

    Attributes:
        labels: its nodeSelector.
        terms: of its required node affinity, any of which suffices; None: it has none.
        node_name: the only node that it selects; empty: any.
        tolerations: its own, and those that the DaemonSet controller gives each pod.
        unclear: the part of its affinity that is not understood and, as in Kubernetes, selects nothing; empty: none.
    """

    labels: Mapping[str, str]
    terms: tuple[Term, ...] | None
    node_name: str
    tolerations: tuple[Mapping[str, Any], ...]
    unclear: str

    def lacks(self, labels: Mapping[str, str]) -> dict[str, str]:
        """Return the labels of the nodeSelector that a node of these labels lacks."""
        return {key: value for key, value in self.labels.items() if labels.get(key) != value}

    def is_for(self, name: str, labels: Mapping[str, str]) -> bool:
        """Return whether nodeSelector, affinity and nodeName select a node; a pod on any other node is deleted."""
        if self.node_name not in ("", name) or self.lacks(labels):
            return False
        named = {_NAME: name}
        return self.terms is None or any(
            all(_holds(each, labels) for each in term.labels) and all(_holds(each, named) for each in term.fields)
            for term in self.terms
        )

    def runs_on(self, name: str, labels: Mapping[str, str], taints: Iterable[Mapping[str, Any]]) -> Runs:
        """Judge a node by its name, its labels and its taints, which have `key`, `effect` and `value`."""
        if not self.is_for(name, labels):
            return Runs(starts=False, stays=False)
        repelled = {
            each.get("effect") for each in taints if not any(_tolerated(each, by=one) for one in self.tolerations)
        }
        return Runs(starts=not repelled & {"NoSchedule", "NoExecute"}, stays="NoExecute" not in repelled)

    def has_agent(self, node: Node, pod: AgentPod | None, besides: Iterable[Mapping[str, Any]] = ()) -> bool:
        """Return whether a node has an agent, or gets one.

        `besides` are taints to assume besides the node's own.
        """
        runs = self.runs_on(node.name, node.labels, (*node.taints, *besides))
        return runs.starts or (runs.stays and pod is not None and not pod.terminating)


def read(template: Mapping[str, Any]) -> Selection:
    """Parse the node selection of a DaemonSet from its `spec.template.spec`.

    Raises:
        LookupError, TypeError, AttributeError: if it is not a pod's spec, which the API server never returns.
    """
    labels = {str(key): str(value) for key, value in (template.get("nodeSelector") or {}).items()}
    required = ((template.get("affinity") or {}).get("nodeAffinity") or {}).get(_REQUIRED)
    terms: tuple[Term, ...] | None = None
    unclear: list[str] = []
    if required is not None:
        parsed = [_term(each) for each in required.get("nodeSelectorTerms") or ()]
        unclear = [why for term in parsed if (why := _why_unclear(term))]
        # An empty or unknown term selects nothing.
        terms = tuple(term for term in parsed if any(term) and not _why_unclear(term))
    tolerations = (
        *(template.get("tolerations") or ()),
        *_default_tolerations(host_network=template.get("hostNetwork") is True),
    )
    return Selection(labels, terms, str(template.get("nodeName") or ""), tolerations, "; ".join(unclear))


def unparked(daemonset: Mapping[str, Any]) -> Selection:
    """Return the nodes that have a pod, or would if the DaemonSet were not parked.

    Raises:
        LookupError, TypeError, AttributeError: as `read` does.
    """
    template = pod_spec(daemonset)
    labels = template.get("nodeSelector") or {}
    return read({**template, "nodeSelector": {key: value for key, value in labels.items() if key not in PARKED}})


def _default_tolerations(*, host_network: bool) -> Sequence[Mapping[str, str]]:
    """Return the tolerations that the DaemonSet controller gives each pod."""
    evicting = [(each, "NoExecute") for each in ("not-ready", "unreachable")]
    scheduling = ["disk-pressure", "memory-pressure", "pid-pressure", "unschedulable"]
    scheduling += ["network-unavailable"] if host_network else []
    evicting += [(each, "NoSchedule") for each in scheduling]
    return [{"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": effect} for key, effect in evicting]


def _term(term: Mapping[str, Any]) -> Term:
    labels, fields = (
        tuple(
            Requirement(
                str(each.get("key", "")), str(each.get("operator", "")), tuple(map(str, each.get("values") or ()))
            )
            for each in term.get(name) or ()
        )
        for name in ("matchExpressions", "matchFields")
    )
    return Term(labels, fields)


def _why_unclear(term: Term) -> str:
    """Name the requirements that Kubernetes rejects; empty: none."""
    wrong = [each for each in term.labels if not _is_of_a_label(each)]
    wrong += [each for each in term.fields if not _is_of_the_name(each)]
    return ", ".join(f"{each.key} {each.operator} [{', '.join(each.values)}]" for each in wrong)


def _is_of_a_label(requirement: Requirement) -> bool:
    _, operator, values = requirement
    if operator in ("Gt", "Lt"):
        return len(values) == 1 and _number(values[0]) is not None
    if operator in ("In", "NotIn"):
        return bool(values) and all(len(each) <= 63 and _VALUE.fullmatch(each) for each in values)
    return operator in ("Exists", "DoesNotExist") and not values


def _is_of_the_name(requirement: Requirement) -> bool:
    return requirement.key == _NAME and requirement.operator in ("In", "NotIn") and len(requirement.values) == 1


def _holds(requirement: Requirement, labels: Mapping[str, str]) -> bool:
    key, operator, values = requirement
    value = labels.get(key)
    if operator == "In":
        return value in values
    if operator == "NotIn":  # a node without the label has none of them
        return value not in values
    if operator in ("Exists", "DoesNotExist"):
        return (value is not None) is (operator == "Exists")
    number, limit = _number(value or ""), _number(values[0])
    if number is None or limit is None:
        return False
    return number > limit if operator == "Gt" else number < limit


def _number(text: str) -> int | None:
    """Parse a label's value like Go's `strconv.ParseInt`, with a bounded number of digits."""
    if not _NUMBER.fullmatch(text) or len(text) > 63:
        return None
    number = int(text)
    return number if number <= _MOST else None


def _tolerated(taint: Mapping[str, Any], *, by: Mapping[str, Any]) -> bool:
    if by.get("effect") and by["effect"] != taint.get("effect"):
        return False
    if by.get("key") and by["key"] != taint.get("key"):
        return False
    operator = by.get("operator") or "Equal"
    return operator == "Exists" or (operator == "Equal" and (by.get("value") or "") == (taint.get("value") or ""))

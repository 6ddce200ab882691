"""Nodes, pod templates, and on which of the nodes a DaemonSet of each runs pods: asked of us, and of Kubernetes itself."""

from __future__ import annotations

from typing import Any, NamedTuple

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
KEPT = "node.kubernetes.io"


class Node(NamedTuple):
    """Its labels, besides that it runs Linux, and its taints."""

    labels: dict[str, str]
    taints: list[dict[str, str]]


def taint(key: str, effect: str = "NoSchedule", value: str = "") -> dict[str, str]:
    return {"key": key, "effect": effect} | ({"value": value} if value else {})


PRESSURES = ("disk-pressure", "memory-pressure", "pid-pressure", "unschedulable")
NODES = {
    "plain": Node({"cores": "8", "zone": "a", "type": "metal"}, []),
    "many": Node({"cores": "16", "zone": "b"}, []),
    "odd": Node({"cores": "8x", "zone": ""}, []),
    "huge": Node({"cores": "99999999999999999999"}, []),
    "fargate": Node({"eks.amazonaws.com/compute-type": "fargate"}, []),
    "virtual": Node({"type": "virtual-kubelet"}, [taint("virtual-kubelet.io/provider", value="azure")]),
    "gpu": Node({}, [taint("gpu", value="yes")]),
    "evicting": Node({}, [taint("gpu", "NoExecute", "yes")]),
    "disliked": Node({}, [taint("gpu", "PreferNoSchedule", "yes")]),
    "pressed": Node({}, [taint(f"{KEPT}/{each}") for each in PRESSURES]),
    "silent": Node({}, [taint(f"{KEPT}/{each}", "NoExecute") for each in ("not-ready", "unreachable")]),
    "starting": Node({}, [taint(f"{KEPT}/not-ready")]),
    "cut-off": Node({}, [taint(f"{KEPT}/network-unavailable")]),
}
ALL = {*NODES}
UNTAINTED = {"plain", "many", "odd", "huge", "fargate", "disliked", "pressed", "silent"}
TOLERANT: dict[str, Any] = {"tolerations": [{"operator": "Exists"}]}


def label(key: str, operator: str, *values: str) -> dict[str, Any]:
    """Make a requirement."""
    return {"key": key, "operator": operator} | ({"values": list(values)} if values else {})


def requiring(*terms: dict[str, Any]) -> dict[str, Any]:
    """Make a template that tolerates all and requires these terms."""
    return TOLERANT | {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": list(terms)}}}}


def labelled(*expressions: dict[str, Any]) -> dict[str, Any]:
    return {"matchExpressions": list(expressions)}


def named(operator: str, name: str) -> dict[str, Any]:
    return {"matchFields": [label("metadata.name", operator, name)]}


def tolerating(**toleration: Any) -> dict[str, Any]:
    return {"tolerations": [toleration]}


IN_A = label("zone", "In", "a")
# What the API server takes: templates, and the nodes that have a pod.
CASES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "nothing said": ({}, UNTAINTED),
    "all tolerated": (TOLERANT, ALL),
    "the node's network": ({"hostNetwork": True}, UNTAINTED | {"cut-off"}),
    "eks": (requiring(labelled(label("eks.amazonaws.com/compute-type", "NotIn", "fargate"))), ALL - {"fargate"}),
    "aks": (requiring(labelled(label("type", "NotIn", "virtual-kubelet"))), ALL - {"virtual"}),
    "a selector": (TOLERANT | {"nodeSelector": {"zone": "a"}}, {"plain"}),
    "a selector of two": (TOLERANT | {"nodeSelector": {"zone": "a", "cores": "16"}}, set()),
    "a selector of an empty value": (TOLERANT | {"nodeSelector": {"zone": ""}}, {"odd"}),
    "In": (requiring(labelled(label("zone", "In", "a", "b", "c"))), {"plain", "many"}),
    "In, the empty value": (requiring(labelled(label("zone", "In", ""))), {"odd"}),
    "NotIn": (requiring(labelled(label("zone", "NotIn", "a", ""))), ALL - {"plain", "odd"}),
    "Exists": (requiring(labelled(label("zone", "Exists"))), {"plain", "many", "odd"}),
    "DoesNotExist": (requiring(labelled(label("zone", "DoesNotExist"))), ALL - {"plain", "many", "odd"}),
    "Gt": (requiring(labelled(label("cores", "Gt", "8"))), {"many"}),
    "Gt, a zero before": (requiring(labelled(label("cores", "Gt", "07"))), {"plain", "many"}),
    "Lt": (requiring(labelled(label("cores", "Lt", "16"))), {"plain"}),
    "a name": (requiring(named("In", "fargate")), {"fargate"}),
    "another name": (requiring(named("NotIn", "fargate")), ALL - {"fargate"}),
    "two terms": (requiring(labelled(IN_A), named("In", "gpu")), {"plain", "gpu"}),
    "two requirements": (requiring(labelled(IN_A, label("cores", "Gt", "8"))), set()),
    "a label and a name": (requiring(labelled(IN_A) | named("In", "many")), set()),
    "an empty term": (requiring({}), set()),
    "an empty term besides": (requiring({}, labelled(IN_A)), {"plain"}),
    "selector and affinity": (requiring(labelled(IN_A)) | {"nodeSelector": {"cores": "16"}}, set()),
    "only preferred": (
        TOLERANT
        | {
            "affinity": {
                "nodeAffinity": {
                    "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": labelled(IN_A)}]
                }
            }
        },
        ALL,
    ),
    "a key": (tolerating(key="gpu", operator="Exists"), UNTAINTED | {"gpu", "evicting"}),
    "a key and an effect": (tolerating(key="gpu", operator="Exists", effect="NoSchedule"), UNTAINTED | {"gpu"}),
    "a value": (tolerating(key="gpu", operator="Equal", value="yes"), UNTAINTED | {"gpu", "evicting"}),
    "a value, by default": (tolerating(key="gpu", value="yes", effect="NoExecute"), UNTAINTED | {"evicting"}),
    "another value": (tolerating(key="gpu", operator="Equal", value="no"), UNTAINTED),
    "no value": (tolerating(key="gpu"), UNTAINTED),
    "an effect": (
        tolerating(operator="Exists", effect="NoSchedule"),
        ALL - {"evicting"},
    ),
    "for some seconds": (
        tolerating(key="gpu", operator="Exists", effect="NoExecute", tolerationSeconds=5), UNTAINTED | {"evicting"},
    ),
}  # fmt: skip
# What it refuses, and a later one may take: it selects nothing, and nobody may conclude anything from that.
UNCLEAR: dict[str, tuple[dict[str, Any], set[str]]] = {
    "an operator": (requiring(labelled(label("zone", "Near", "a"))), set()),
    "an operator, besides": (requiring(labelled(label("zone", "Near", "a")), labelled(IN_A)), {"plain"}),
    "an operator, in one term": (requiring(labelled(IN_A, label("zone", "Near", "a"))), set()),
    "no operator": (requiring(labelled({"key": "zone"})), set()),
    "In nothing": (requiring(labelled(label("zone", "In"))), set()),
    "NotIn nothing": (requiring(labelled(label("zone", "NotIn") | {"values": None})), set()),
    "NotIn what is no value": (requiring(labelled(label("zone", "NotIn", "a b"))), set()),
    "NotIn what is too long": (requiring(labelled(label("zone", "NotIn", "a" * 64))), set()),
    "Exists with a value": (requiring(labelled(label("zone", "Exists", "a"))), set()),
    "more than a word": (requiring(labelled(label("cores", "Gt", "x"))), set()),
    "more than two": (requiring(labelled(label("cores", "Gt", "1", "2"))), set()),
    "more than less than nothing": (requiring(labelled(label("cores", "Gt", "-1"))), set()),
    "more than other digits": (requiring(labelled(label("cores", "Gt", "\u0661"))), set()),
    "more than Go counts": (requiring(labelled(label("cores", "Lt", "9" * 20))), set()),
    "another field": (requiring({"matchFields": [label("metadata.uid", "NotIn", "a")]}), set()),
    "two names": (requiring({"matchFields": [label("metadata.name", "In", "plain", "many")]}), set()),
    "a name that exists": (requiring({"matchFields": [label("metadata.name", "Exists")]}), set()),
}

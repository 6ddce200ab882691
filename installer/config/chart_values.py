"""The chart's values that are not settings of the agent: those of the DaemonSet, the controller and related objects. Pure.

Those of the DaemonSet are also values of an IstioControlPlane.
"""

from __future__ import annotations

from typing import Any

from installer.config.declaration import Value
from installer.config.kinds import Kind, boolean, text
from installer.config.value_types import DIRECTORY, HUB, host_port

_QUANTITY = {
    "type": ["string", "number"],
    "pattern": r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+|[KMGTPE]i|[numkMGTPE])?$",
    "description": "a quantity, such as 100m or 128Mi",
}
_QUANTITIES = {"type": "object", "additionalProperties": _QUANTITY}
_CLAIM = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "description": "the name of a claim"},
        "request": {"type": "string"},
    },
    "required": ["name"],
    "additionalProperties": False,
}
_TEXTS = Kind({"type": "object", "additionalProperties": {"type": "string"}})
_OBJECT = Kind({"type": "object"})
_OBJECTS = Kind({"type": "array", "items": {"type": "object"}})
_NAMES = Kind({"type": "array", "items": {"type": "string"}})


def _integer(least: int) -> Kind:
    return Kind({"type": "integer", "minimum": least, "description": f"an integer of at least {least}"})


def _list_of(pattern: str) -> Kind:
    return Kind({"type": "array", "items": {"type": "string", "pattern": f"^{pattern}$"}})


def _object(*keys: str, kind: Kind = _OBJECT) -> Kind:
    properties = {key: dict(kind.schema) for key in keys}
    return Kind({"type": "object", "properties": properties, "additionalProperties": False})


def _one_of(*values: str) -> Kind:
    return Kind({"type": "string", "enum": list(values), "description": f"one of {', '.join(values)}"})


def _value(key: str, kind: Kind, default: object, doc: str, **others: Any) -> Value:
    return Value(key=key, kind=kind, default=default, doc=doc, **others)


def _group(key: str, doc: str, *values: Value, **others: Any) -> Value:
    """Declare a value that is an object of others."""
    properties = {each.key: dict(each.kind.schema) for each in values}
    kind = Kind({"type": "object", "properties": properties, "additionalProperties": False})
    return _value(key, kind, {each.key: each.default for each in values}, doc, values=values, **others)


IMAGE = (
    _value(
        "hub",
        text(
            "a registry, and a path in it, without tag and digest, such as registry.example.org:5000/mesh", f"({HUB})?"
        ),
        "",
        "Registry, and path in it, to pull the image `install-cni` from. Empty: the container runtime of the node "
        "chooses.",
        in_resource=True,
    ),
    _value(
        "tag",
        Kind(
            {
                "type": ["string", "integer"],
                "pattern": "^([A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[0-9a-f]{64})?$",
                "minimum": 0,
                "description": "a tag, @sha256: and 64 lowercase hexadecimal digits, or both, such as 0.1.0 or 0.1.0@sha256:…",
            }
        ),
        "",
        "Tag of the image, its digest, or both: `0.1.0`, `@sha256:…` or `0.1.0@sha256:…`. Empty: the chart's "
        "appVersion.",
        in_resource=True,
    ),
    _value(
        "pullPolicy",
        _one_of("Always", "IfNotPresent", "Never"),
        "Always",
        "When the kubelet pulls the image.",
        in_resource=True,
    ),
    _value("imagePullSecrets", _NAMES, [], "Names of Secrets to pull the image with, in the agent's namespace."),
)
PODS = (
    _value(
        "psp_cluster_role",
        Kind({"type": "string"}),
        "",
        "ClusterRole that a RoleBinding lets the agent use: of a Pod Security Policy, or of OpenShift's security "
        "context constraints.",
        in_resource=True,
        by_platform=True,
    ),
    _value("podAnnotations", _TEXTS, {}, "Additional annotations of the agent's pods.", in_resource=True),
    _value("podLabels", _TEXTS, {}, "Additional labels of the agent's pods."),
    _value(
        "resources",
        Kind(
            {
                "type": "object",
                "properties": {
                    "requests": _QUANTITIES,
                    "limits": _QUANTITIES,
                    "claims": {"type": "array", "items": _CLAIM},
                },
                "additionalProperties": False,
            }
        ),
        {"requests": {"cpu": "20m", "memory": "80Mi"}},
        "Resource requests and limits of the agent.",
        in_resource=True,
    ),
)
CHART = (
    _value(
        "namespace",
        text("the name of a namespace", "([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?"),
        "",
        "Namespace of agent and controller, as `spec.cni.components.cni.namespace` of an IstioControlPlane says it. "
        "Empty: the release's.",
        by_platform=True,
    ),
    _value(
        "seLinuxOptions",
        _object("user", "role", "type", "level", kind=Kind({"type": "string"})),
        {},
        "SELinux label of the agent, for nodes that enforce one.",
        by_platform=True,
    ),
    _value(
        "mountPropagation",
        _one_of("None", "HostToContainer"),
        "None",
        "Whether the agent sees what the node mounts after the agent has started. `HostToContainer`: it does, and "
        "starts only on nodes whose mounts are shared (`findmnt -o PROPAGATION /`). `None`: it starts on every node "
        "and sees the pods that ran before it; for a later pod that needs repair it exits, and the kubelet restarts "
        "it. All presets but k3d, k3s and microk8s set `HostToContainer`.",
        by_platform=True,
    ),
    _value(
        "maxUnavailable",
        Kind({"type": ["integer", "string"], "minimum": 1, "pattern": "^([1-9][0-9]?|100)%$"}),
        "25%",
        "How many nodes may be without a ready agent during a rolling update: a number, or a percentage, which is "
        "rounded up.",
    ),
    _value(
        "nodeSelector",
        Kind(dict(_TEXTS.schema) | {"not": {"required": ["cni.istio.io/parked"]}}),
        {},
        "Labels of the nodes that run an agent, besides `kubernetes.io/os: linux`. A node that loses one of them loses "
        "the plugin.",
    ),
    _value(
        "tolerations",
        _OBJECTS,
        [],
        "Additional tolerations of the agents. The agents tolerate every taint already: exclude nodes with "
        "`nodeSelector` or `affinity`.",
    ),
    _value(
        "affinity",
        _object("nodeAffinity", "podAffinity", "podAntiAffinity"),
        {},
        "Affinity of the agents. The presets aks, bottlerocket and eks exclude nodes that run no DaemonSet (virtual "
        "nodes, Fargate); their required terms stay unless you give required terms of node affinity here.",
        by_platform=True,
    ),
    _group(
        "resourceQuota",
        "ResourceQuota for the priority classes of agent and controller, unless the namespace is kube-system.",
        _value("enabled", boolean(), False, "Whether to create it."),
        _value("pods", _integer(1), 5000, "How many pods it allows."),
        by_platform=True,
    ),
    _group(
        "multus",
        "NetworkAttachmentDefinition `default/istio-cni`, for pods that ask Multus for it.",
        _value("enabled", boolean(), False, "Whether to create it."),
        by_platform=True,
    ),
    _group(
        "controller",
        "The controller: status, rolling updates, uninstall in order, and startup taints.",
        _value("enabled", boolean(), True, "Whether to install it."),
        _value("deadline", _integer(0), 300, "Seconds that an uninstall may take."),
        _value(
            "healthAddress",
            host_port(optional=False),
            "0.0.0.0:15014",
            "Address that serves `/healthz`, `/readyz` and `/metrics`.",
        ),
        _value("mayBind", _NAMES, [], "ClusterRoles that an IstioControlPlane may ask for as `psp_cluster_role`."),
        _value(
            "allowedHubs",
            _list_of(HUB),
            [],
            "Registries that an IstioControlPlane may ask for as `hub`, besides the chart's.",
        ),
        _value(
            "allowedDirectories",
            _list_of(DIRECTORY),
            [],
            "Directories that it may ask for as `cniBinDir` and `cniConfDir`, besides the chart's and those with `cni` "
            "in their path.",
        ),
        _value(
            "allowedAnnotations",
            _list_of("[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9._-]*)?"),
            [],
            "Annotations that it may ask for as `podAnnotations`, besides those without a domain and of prometheus.io: "
            "a key, or a domain with its slash.",
        ),
        _value("nodeSelector", _TEXTS, {}, "Labels of the nodes that may run it, besides its own."),
        _value("affinity", _OBJECT, {}, "Affinity in place of its own. Empty: it prefers control-plane nodes."),
        _value("tolerations", _OBJECTS, [], "Tolerations besides its own."),
        _value(
            "resources",
            _OBJECT,
            {"requests": {"cpu": "20m", "memory": "128Mi"}},
            "Resource requests and limits of its pods.",
        ),
    ),
    _group(
        "preDeleteHook",
        "Job that `helm uninstall` runs first: it deletes the DaemonSet and waits until the agents have uninstalled "
        "the plugin.",
        _value("enabled", boolean(), True, "Whether to run it."),
        _value("progressDeadlineSeconds", _integer(1), 120, "How long it waits while nothing changes, in seconds."),
    ),
    _group(
        "taint",
        "Taint `cni.istio.io/not-ready` on new nodes, which keeps pods away until the agent is ready.",
        _value("enabled", boolean(), False, "Whether the controller sets the taint. It removes the taint in any case."),
    ),
    _group(
        "podMonitor",
        "PodMonitors of the Prometheus operator for agents and controller. They need a `healthAddress` that other "
        "nodes can reach.",
        _value("enabled", boolean(), False, "Whether to create them."),
        _value("interval", text("a duration, such as 30s", "([0-9]+(ms|s|m|h))+"), "30s", "How often to scrape."),
        _value("labels", _TEXTS, {}, "Their labels."),
    ),
    _group(
        "networkPolicy",
        "NetworkPolicy that allows nothing but connections to the health port.",
        _value("enabled", boolean(), False, "Whether to create it."),
        _value("from", _OBJECTS, [], "The peers that may connect, as in a NetworkPolicy. Empty: all."),
    ),
)

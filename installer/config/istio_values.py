"""The values of Istio's own chart `istio-cni`, and what each becomes in ours. Pure.

The chart takes a values file of Istio's as it is: at the top, below `cni` as in an IstioOperator, and in the block of defaults
that `helm show values` prints. `make generate` writes the schema, the table that templates/_istio.tpl reads, and the one of
docs/istio.md. A test reads the values of Istio's chart and fails on one that is not here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULTS = "_internal_defaults_do_not_set"  # the block of Istio's values.yaml
BY_REPAIR, BY_LEVEL = "repair", "level"  # how to translate what no list of pairs can


@dataclass(frozen=True, kw_only=True)
class IstioValue:
    """A value of Istio's chart.

    Attributes:
        path: its keys there.
        to: the value of ours below `cni` that it sets, or `platform`; empty: none.
        by: how it is translated: as BY_REPAIR or BY_LEVEL; empty: by `pairs`, or as it is.
        pairs: values of theirs, and ours for each; None: it asks for nothing.
        refused: the values of theirs that are refused; with `expected`, all but those.
        expected: the values of theirs that ask for nothing.
        doc: the remedy where a value is refused, otherwise why it has no effect.
    """

    path: str
    to: str = ""
    by: str = ""
    pairs: Sequence[tuple[Any, Any]] = field(default=(), hash=False)
    refused: Sequence[Any] = field(default=(), hash=False)
    expected: Sequence[Any] = field(default=(), hash=False)
    doc: str = ""

    @property
    def keys(self) -> list[str]:
        """The keys of the path."""
        return self.path.split(".")


def _same(*paths: str) -> tuple[IstioValue, ...]:
    return tuple(IstioValue(path=each, to=each) for each in paths)


def _refused(path: str, *expected: Any, doc: str) -> IstioValue:
    return IstioValue(path=path, expected=expected, doc=doc)


def _without_effect(doc: str, *paths: str) -> tuple[IstioValue, ...]:
    return tuple(IstioValue(path=each, doc=doc) for each in paths)


_POLICIES = [("", None), *((each, each) for each in ("Always", "IfNotPresent", "Never"))]
_AMBIENT = "ambient mode is not supported: keep Istio's own agent for it"
_PLATFORMS = [
    ("", None), *((each, each) for each in ("gke", "k3d", "k3s", "microk8s", "minikube")), ("openshift", "openshift-4"),
]  # fmt: skip

ISTIO_VALUES = (  # of two that set the same value, the later wins
    IstioValue(path="global.platform", to="platform", pairs=_PLATFORMS, doc="set platform to one of this chart's presets"),
    *_without_effect("it names Istio's images: set cni.hub and cni.tag", "global.hub", "global.tag"),
    *_without_effect("the image has no variants", "global.variant", "variant"),
    *_same("hub", "tag"),
    _refused("image", "", "install-cni", doc="set cni.hub, which install-cni is pulled from"),
    IstioValue(path="global.imagePullPolicy", to="pullPolicy", pairs=_POLICIES),
    IstioValue(path="pullPolicy", to="pullPolicy", pairs=_POLICIES),
    IstioValue(path="global.imagePullSecrets", to="imagePullSecrets"),
    IstioValue(path="global.logging.level", to="logLevel", by=BY_LEVEL, doc="the most verbose of the scopes' levels"),
    IstioValue(path="logging.level", to="logLevel", by=BY_LEVEL, doc="the most verbose of the scopes' levels"),
    *_without_effect("logs are always JSON", "global.logAsJson"),
    *_same("cniBinDir", "cniConfDir", "cniConfFileName", "chained"),
    IstioValue(path="cniNetnsDir", to="netnsDir"),
    *_same("istioOwnedCNIConfig", "istioOwnedCNIConfigFileName", "excludeNamespaces"),
    IstioValue(path="provider", to="multus", pairs=[("default", None), ("multus", {"enabled": True})]),
    IstioValue(path="global.nativeNftables", to="redirectBackend", pairs=[(False, None), (True, "nft")]),
    *(
        IstioValue(path=f"repair.{each}", to="repairMode", by=BY_REPAIR)
        for each in ("enabled", "repairPods", "deletePods", "labelPods")
    ),
    *_without_effect("this agent judges by rules, not by the state of containers", "repair.initContainerName"),
    *_without_effect("no pod is labelled", "repair.brokenPodLabelKey", "repair.brokenPodLabelValue"),
    *_without_effect("Istio's chart does not use it either", "repair.hub", "repair.tag"),
    *_same("podAnnotations", "podLabels", "resources", "affinity", "tolerations", "seLinuxOptions"),
    *_without_effect("cni.resources has a default", "global.defaultResources"),
    _refused("daemonSetLabels", {}, doc="set cni.podLabels, for the agents' pods"),
    _refused("seccompProfile", {}, {"type": "RuntimeDefault"}, doc="the agents always have RuntimeDefault"),
    *_without_effect("the agents need no AppArmor profile of their own", "useAppArmorAnnotation"),
    IstioValue(path="resourceQuotas", to="resourceQuota"),
    _refused("updateStrategy.type", "RollingUpdate", doc="set cni.maxUnavailable"),
    IstioValue(path="updateStrategy.rollingUpdate.maxUnavailable", to="maxUnavailable"),
    _refused("updateStrategy.rollingUpdate.maxSurge", 0, doc="one agent runs on a node: set cni.maxUnavailable"),
    *_without_effect("it is always 30: an agent exits within 25 s", "terminationGracePeriodSeconds"),
    IstioValue(
        path="global.networkPolicy.enabled",
        to="networkPolicy",
        pairs=[(False, None), (True, {"enabled": True, "from": []})],
    ),
    _refused("global.resourceScope", "all", doc="install all objects with one release"),
    _refused("env", {}, doc="set the value behind the variable, such as cni.logLevel"),
    *_without_effect("it only labels objects", "revision", "ownerName"),
    _refused("ambient.enabled", False, doc=_AMBIENT),
    *_without_effect(
        "of ambient mode",
        *(
            f"ambient.{each}"
            for each in (
                "enablementSelectors", "configDir", "dnsCapture", "ipv6", "reconcileIptablesOnStartup",
                "shareHostNetworkNamespace", "enableAmbientDetectionRetry",
            )
        ),
    ),
    IstioValue(path="global.profile", refused=["ambient"], doc=_AMBIENT),
    IstioValue(path="profile", refused=["ambient"], doc=_AMBIENT),
    *_without_effect("this agent has no behaviour of earlier releases of Istio", "compatibilityVersion"),
)  # fmt: skip

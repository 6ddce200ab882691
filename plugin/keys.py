"""The annotations, labels and env that configure a pod: every one that is read. No other is stored.

Lightweight on purpose: the client imports this on its rare paths.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PROXY = "istio-proxy"
INIT = "istio-init"

INJECT = "sidecar.istio.io/inject"  # an annotation and a label; the label wins
STATUS = "sidecar.istio.io/status"  # written by the injector; only its presence counts
INTERCEPTION_MODE = "sidecar.istio.io/interceptionMode"
TRAFFIC = "traffic.sidecar.istio.io/"
TRAFFIC_NAMES = (
    "includeInboundPorts",
    "excludeInboundPorts",
    "includeOutboundIPRanges",
    "excludeOutboundIPRanges",
    "includeOutboundPorts",
    "excludeOutboundPorts",
    "excludeInterfaces",
    "kubevirtInterfaces",
)
INCLUDE_INBOUND = TRAFFIC + "includeInboundPorts"
REROUTE = "istio.io/reroute-virtual-interfaces"
PARAMETERS = (INTERCEPTION_MODE, *(TRAFFIC + name for name in TRAFFIC_NAMES), REROUTE)

DISABLE_ENVOY = "DISABLE_ENVOY"
DNS_CAPTURE = "ISTIO_META_DNS_CAPTURE"
DROP_INVALID = "INVALID_DROP"
DUAL_STACK = "ISTIO_DUAL_STACK"
ENV = frozenset({DISABLE_ENVOY, DNS_CAPTURE, DROP_INVALID, DUAL_STACK})

STATIC_POD_IDS = ("kubernetes.io/config.mirror", "kubernetes.io/config.hash")

# Stored characters of a value: of a list, and of a word such as true. No valid value is longer.
LONGEST_LIST, LONGEST_WORD = 1 << 16, 128


def of_the_mesh(annotations: Mapping[str, str]) -> dict[str, str]:
    """Reduce a pod's annotations to what the decision reads; for a pod that was never injected, whether it opts out."""
    kept = {INJECT: annotations[INJECT][:LONGEST_WORD]} if INJECT in annotations else {}
    if STATUS in annotations:
        kept |= {key: annotations[key][: LONGEST_LIST + 1] for key in PARAMETERS if key in annotations}
        kept[STATUS] = ""
    return kept

"""The rows of the decision table that need only the runtime's input, not the pod: rows 1, 2 and 4.

They save the agent a lookup, and the client passes such pods when no agent answers (F3). Lightweight on purpose: the client
imports this where a full Python would be too slow.
"""

from __future__ import annotations

from typing import NamedTuple

from plugin.keys import STATUS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


class Pass(NamedTuple):
    """The pod is left alone: `row` is the short name of the table's row, `reason` explains it to people."""

    row: str
    reason: str

    @property
    def is_excluded(self) -> bool:
        """Whether the pod's namespace is excluded."""
        return self.row == "excluded"


NOT_KUBERNETES = Pass(
    "not-kubernetes", "not a Kubernetes pod: CNI_ARGS has no K8S_POD_NAMESPACE and K8S_POD_NAME that it allows"
)
NEVER_INJECTED = Pass("never-injected", f"never injected: it has no annotation {STATUS}")


def excluded(namespace: str) -> Pass:
    """Explain why a pod in an excluded namespace is left alone."""
    return Pass("excluded", f"namespace {namespace} is excluded")


def outside_mesh(
    namespace: str, name: str, excluding: Collection[str], annotations: Mapping[str, str] | None
) -> Pass | None:
    """Explain why a pod is outside the mesh, if that is certain without the pod itself.

    Args:
        namespace: `K8S_POD_NAMESPACE`; empty if the runtime did not pass it.
        name: `K8S_POD_NAME`; empty if the runtime did not pass it.
        excluding: the namespaces whose pods are left alone.
        annotations: the pod's, if the runtime passes them (`io.kubernetes.cri.pod-annotations`); otherwise None.

    Returns:
        The row that applies, or None: the pod itself decides.
    """
    if not namespace or not name:
        return NOT_KUBERNETES
    if namespace in excluding:
        return excluded(namespace)
    if annotations is not None and STATUS not in annotations:
        return NEVER_INJECTED
    return None

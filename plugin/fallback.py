"""The client without an agent: pass pods that are certainly outside the mesh, explain the rest (D1, D9)."""

from __future__ import annotations

from plugin import cni, jsontext
from plugin.prefilter import outside_mesh

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from plugin import wire


def agent_socket(stdin: bytes) -> bytes | None:
    """Find the agent's socket in a configuration that libcni did not write; None if it names none."""
    try:
        path = jsontext.loads(stdin.decode()).get("agentSocket")
    except (ValueError, AttributeError):
        return None  # the agent reports the error
    return path.encode() if isinstance(path, str) and path.startswith("/") else None


def answer(environment: Mapping[bytes, bytes], stdin: bytes) -> bytes | None:
    """Answer for a pod that needs no agent.

    Returns:
        The result for stdout, or None: this pod may be in the mesh and has to wait for the agent.

    Raises:
        CniError: if the runtime's input is invalid, with or without an agent.
    """
    request = cni.Request.parse(environment, stdin)
    if request.command == "STATUS":
        return b""  # an agent that restarts must not take the node out (F27)
    passes = outside_mesh(request.namespace, request.pod, request.excluded, request.annotations)
    return request.result() if passes else None


def agent_unreachable(path: bytes, seen: OSError | wire.SkewError, waited: float) -> cni.CniError:
    """Build the error for an agent that did not answer: the runtime retries, and the message holds the remedy."""
    why = getattr(seen, "strerror", None) or seen
    return cni.CniError(
        cni.Code.TRY_AGAIN_LATER,
        f"the istio-cni agent did not answer on {path.decode('utf-8', 'replace')} within {waited:.0f} s "
        f"({why}). The pod may be part of the mesh and is not started without its redirect; it is tried "
        "again. See whether the agent runs on this node: kubectl get pods -A -l k8s-app=istio-cni-node -o wide. If istio-cni "
        "was uninstalled, a network configuration of this node still names it: take istio-cni out of that (Multus: restart its "
        "pod on this node)",
    )

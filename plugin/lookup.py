"""The pod of a request: found in the source of pods, and told apart from another one of its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plugin.cni import CniError, Code
from plugin.decision import differing
from plugin.keys import STATUS
from plugin.pod import PodsUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plugin.cni import Request
    from plugin.pod import Pod, PodSource


class Lookup:
    """Finds the pods of requests."""

    def __init__(self, pods: PodSource) -> None:
        """Use a source of the node's pods."""
        self._pods = pods

    def knows_as_injected(self, request: Request) -> bool:
        """Return whether the source already knows that the injector has changed a pod."""
        known = self._pods.cached(request.namespace, request.pod, request.pod_uid)
        return known is not None and known.is_injected

    async def find(self, request: Request) -> Pod:
        """Find the pod of a request.

        Raises:
            CniError: code 11, if it cannot be looked up, or not be distinguished from another of its name.
        """
        pod, annotations = await self._request(request), request.annotations
        if annotations is not None and STATUS in annotations and not pod.is_injected:
            pod = await self._request(request, fresh=True)  # the cache holds little of a pod outside the mesh
        if request.pod_uid is None and pod.uid:
            _require_agreement(pod, annotations)
        return pod

    async def _request(self, request: Request, *, fresh: bool = False) -> Pod:
        try:
            pod = await self._pods.find(request.namespace, request.pod, request.pod_uid, fresh=fresh)
        except PodsUnavailable as error:
            raise CniError(
                Code.TRY_AGAIN_LATER,
                f"pod {request.namespace}/{request.pod} may be part of the mesh and cannot be looked up now, so it is not "
                f"started yet; the runtime tries again: {error}",
            ) from error
        if pod is None:
            raise CniError(
                Code.TRY_AGAIN_LATER,
                f"no pod {request.namespace}/{request.pod} with uid {request.pod_uid}: deleted meanwhile? If not, it is "
                "tried again",
            )
        return pod


def _require_agreement(pod: Pod, annotations: Mapping[str, str] | None) -> None:
    """Compare a pod that was found by name alone with the runtime's data about the one that it starts."""
    if annotations is None:
        seen = "nothing but its name, which an earlier pod may have had" if pod.maybe_stale else ""
    else:
        seen = ", ".join(differing(pod, annotations))
        seen = seen and f"another one's annotations ({seen} differ)"
    if seen:
        raise CniError(
            Code.TRY_AGAIN_LATER,
            f"pod {pod.namespace}/{pod.name} may be part of the mesh, and cannot be told from another pod of its name: "
            f"saw {seen}, expected K8S_POD_UID, or the runtime's annotations and the API server's to agree. It is not "
            "started yet; the runtime tries again",
        )

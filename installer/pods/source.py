"""The source of a node's pods: the cluster, or a folder of manifests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from plugin.pod import PodSource

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from installer.config.settings import Settings
    from plugin.pod import Pod


class KnownPods(PodSource, Protocol):
    """The pods of one node."""

    async def run(self, stop: asyncio.Event) -> None:
        """Follow the pods until `stop` is set."""

    @property
    def known(self) -> bool:
        """Whether all pods are known."""

    @property
    def reason(self) -> str:
        """Why they are not known; empty if they are."""

    @property
    def count(self) -> int:
        """The number of pods."""

    def __iter__(self) -> Iterator[Pod]:
        """Go through them."""


def open_pod_source(settings: Settings, on_change: Callable[[], None]) -> KnownPods:
    """Build the source that the settings select; only a cluster needs kopf, which loads slowly."""
    if settings.pods_from:
        from installer.pods.folder import ManifestPods  # noqa: PLC0415

        return ManifestPods(settings.pods_from, on_change)
    from installer.pods.cluster import NodePods  # noqa: PLC0415

    return NodePods(settings.node_name, settings.kubeconfig, on_change)

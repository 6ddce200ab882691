"""Where an agent knows its node's pods from: the cluster, or a folder of manifests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from plugin.pod import PodSource

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from installer.config.settings import Settings
    from plugin.pod import Pod


class KnownPods(PodSource, Protocol):
    """The pods of one node."""

    async def run(self, stop: asyncio.Event) -> None:
        """Keep knowing them until told to stop."""

    @property
    def known(self) -> bool:
        """Whether all of them are known."""

    @property
    def reason(self) -> str:
        """Why they are not."""

    @property
    def count(self) -> int:
        """How many there are."""

    def __iter__(self) -> Iterator[Pod]:
        """Go through them."""


def open_pod_source(settings: Settings) -> KnownPods:
    """Make the source that the settings ask for; only a cluster needs kopf, which takes long to load."""
    if settings.pods_from:
        from installer.pods.folder import ManifestPods  # noqa: PLC0415

        return ManifestPods(settings.pods_from)
    from installer.pods.cluster import NodePods  # noqa: PLC0415

    return NodePods(settings.node_name, settings.kubeconfig)

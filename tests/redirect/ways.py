"""All ways in which rules reach the kernel: each backend, and nft without the messages that are compiled once (D12)."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from plugin import apply as applying
from plugin.backend import Backend
from plugin.session_nft import NftSession

if TYPE_CHECKING:
    from collections.abc import Iterator

LIBNFTABLES = "nft by libnftables alone"
WAYS = (*(backend.value for backend in Backend), LIBNFTABLES)


@contextmanager
def written_by(way: str) -> Iterator[Backend]:
    """Have `plugin.apply` write rules in one of these ways: by the backend that is yielded."""
    if way != LIBNFTABLES:
        yield Backend(way)
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(applying, "SESSIONS", {**applying.SESSIONS, Backend.NFT: NftSession})
        yield Backend.NFT

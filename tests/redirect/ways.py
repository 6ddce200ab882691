"""All ways in which rules reach the kernel: each backend, and nft without the messages that are compiled once (D12)."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from plugin import apply as applying
from plugin.backend import Backend
from plugin.session_nft import NftSession
from plugin.session_replay import ReplaySession
from plugin.template import compile_now, template_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from plugin.ruleset import Ruleset

LIBNFTABLES = "nft by libnftables alone"
WAYS = (*(backend.value for backend in Backend), LIBNFTABLES)


class CompiledSession(ReplaySession):
    """A `ReplaySession` that compiles a ruleset at its first use, however large."""

    def replace(self, rules: Ruleset) -> None:
        _compile(rules)
        super().replace(rules)

    def difference(self, rules: Ruleset) -> str | None:
        _compile(rules)
        return super().difference(rules)


def _compile(rules: Ruleset) -> None:
    if not template_of(rules):
        compile_now(rules)


@contextmanager
def written_by(way: str) -> Iterator[Backend]:
    """Have `plugin.apply` write rules in one of these ways: by the backend that is yielded."""
    by_nft = NftSession if way == LIBNFTABLES else CompiledSession
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(applying, "SESSIONS", {**applying.SESSIONS, Backend.NFT: by_nft})
        yield Backend.NFT if way == LIBNFTABLES else Backend(way)

"""A short soak: nothing is lost, whoever wishes the agent ill."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.soak.__main__ import soak

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

SECONDS = 15


@pytest.mark.timeout(900)
async def test_a_short_soak_loses_nothing(tmp_path: Path) -> None:
    ledger = await soak(tmp_path, SECONDS, seed=7, tell=print)
    assert not ledger.lost, ledger.rows()
    for kind in ("pods, meshed", "pods, tproxy", "pods, plain"):
        assert ledger.done[kind] > 0, ledger.rows()
    assert ledger.done["faults: a conflist written twice within 12 ms"] > 0, ledger.rows()

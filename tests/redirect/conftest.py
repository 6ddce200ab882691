"""What the tests of rules and packets share."""

from __future__ import annotations

from contextlib import ExitStack
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

import pytest

from plugin import rules
from plugin.redirect import Mode
from tests.redirect.machines import Machines
from tests.redirect.probes import PROXY, Sender
from tests.redirect.ways import WAYS, written_by

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from plugin.backend import Backend

    MachinesOf: TypeAlias = Callable[[Sender], Machines]


@pytest.fixture(autouse=True)
def no_kept_rulesets() -> None:
    """Forget the rulesets of other tests: where `MOST_KEPT` are in use, a new one is not kept, nor compiled, for a while."""
    rules._shared.clear()


@pytest.fixture(scope="package")
def machines_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MachinesOf]:
    """Machines for a sidecar with these ids."""
    with ExitStack() as stack:

        @cache
        def made(ids: Sender) -> Machines:
            return stack.enter_context(Machines(tmp_path_factory.mktemp("machines"), ids=ids))

        yield made


@pytest.fixture
def machines(machines_of: MachinesOf) -> Machines:
    return machines_of(PROXY)


@pytest.fixture(params=WAYS)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    with written_by(request.param) as backend:
        yield backend


@pytest.fixture(params=Mode, ids=lambda mode: mode.value)
def mode(request: pytest.FixtureRequest) -> Mode:
    return Mode(request.param)

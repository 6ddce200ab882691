"""The kernel holds what was rendered, to the letter; CHECK sees what changed."""

from __future__ import annotations

import ipaddress
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import pytest

from plugin import nft
from plugin.apply import apply, check
from plugin.netns import NetnsFd
from plugin.preflight import preflight
from plugin.redirect import Family, Redirect
from plugin.ruleset import ruleset
from plugin.values import Interface, Port
from tests.support.netns import Netns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_T = TypeVar("_T")
BOTH = (Family.V4, Family.V6)
REDIRECTS = {
    "defaults": Redirect(),
    "dual stack": Redirect(families=BOTH),
    "all options": Redirect(
        families=BOTH,
        include_inbound_ports=(Port(80), Port(8080)),
        include_outbound=tuple(
            map(ipaddress.ip_network, ("10.0.0.0/8", "127.0.0.0/8", "fd00::/8", "::ffff:10.0.0.0/104"))
        ),
        exclude_outbound=(ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("::/0")),
        include_outbound_ports=(Port(443),),
        exclude_outbound_ports=(Port(22),),
        exclude_interfaces=(Interface("net1"),),
    ),
}


@pytest.fixture
def netns(tmp_path: Path) -> Iterator[Netns]:
    with Netns(tmp_path / "netns") as made:
        yield made


def on_a_worker(work: Callable[[NetnsFd], _T], netns: Netns) -> _T:
    with netns.path.open("rb") as file, ThreadPoolExecutor(1) as worker:
        return worker.submit(work, NetnsFd(file.fileno())).result()


def nft_in(netns: Netns, *words: str) -> str:
    command = ["/usr/bin/nsenter", f"--net={netns.path}", "/usr/sbin/nft", "-s", "-y", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("case", REDIRECTS)
def test_the_kernel_lists_what_was_rendered_however_often_it_is_applied(netns: Netns, case: str) -> None:
    redirect = REDIRECTS[case]
    nft_in(netns, "add table ip others")
    for _ in range(2):
        on_a_worker(lambda fd: apply(fd, redirect)(), netns)
    assert nft_in(netns, "list", "ruleset") == "table ip others {\n}\n" + nft.listing(ruleset(redirect))
    assert on_a_worker(lambda fd: check(fd, redirect), netns) is None


def test_check_names_the_first_difference(netns: Netns) -> None:
    redirect = REDIRECTS["defaults"]
    on_a_worker(lambda fd: apply(fd, redirect)(), netns)
    nft_in(netns, "flush chain ip istio-cni ISTIO_REDIRECT")
    difference = on_a_worker(lambda fd: check(fd, redirect), netns)
    assert difference
    assert "expected 'meta l4proto tcp redirect to :15001'" in difference


def test_this_node_can_redirect() -> None:
    with ThreadPoolExecutor(1) as worker:
        assert worker.submit(preflight).result() is None

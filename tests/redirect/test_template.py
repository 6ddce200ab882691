"""Rules compiled once and replayed (D12): the kernel holds the same, any difference is detected, and all works without."""

from __future__ import annotations

import errno
import ipaddress
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from plugin import netns as namespaces
from plugin import nft, session_replay, template
from plugin.apply import ApplyError, apply, check
from plugin.backend import Backend
from plugin.nfnetlink import GETRULE, Nfnetlink
from plugin.redirect import Redirect
from plugin.rules import ruleset
from plugin.template import template_of
from plugin.values import Port
from tests.redirect.test_kernel import BOTH, REDIRECTS, inside, listed, on_a_worker
from tests.support.netns import Netns, UserNetns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from plugin.netns import NetnsFd

pytestmark = pytest.mark.kernel

NFT = Backend.NFT
RANGES = tuple(ipaddress.ip_network(f"10.{number}.0.0/16") for number in range(256))


@pytest.fixture(params=[Netns, UserNetns], ids=["netns", "hostUsers: false"])
def netns(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Netns]:
    with request.param(tmp_path / "netns") as made:
        yield made


@pytest.fixture
def without_libnftables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nobody but the compiler load it."""

    def refuse() -> None:
        raise AssertionError("libnftables was asked")

    monkeypatch.setattr(session_replay, "NftSession", refuse)


def written(netns: Netns, redirect: Redirect) -> None:
    on_a_worker(lambda fd: apply(fd, redirect, NFT).free(), netns)


def holds(netns: Netns, redirect: Redirect) -> bool:
    """Whether the netns holds the very bytes."""

    def look(fd: NetnsFd) -> bool:
        compiled = template_of(ruleset(redirect))
        assert compiled
        with namespaces.entered(fd), Nfnetlink() as kernel:
            return compiled.is_held(kernel)

    return on_a_worker(look, netns)


@pytest.mark.usefixtures("without_libnftables")
@pytest.mark.parametrize("case", REDIRECTS)
def test_a_replayed_template_equals_the_rendered_rules(netns: Netns, case: str) -> None:
    redirect = REDIRECTS[case]
    inside(netns, "nft", "add table ip others")
    for before in (REDIRECTS["all options of TPROXY"], redirect, redirect):
        written(netns, before)
    rules = nft.listing(ruleset(redirect))
    assert listed(netns, NFT).startswith("table ip others {\n}\n")
    for line in rules.splitlines():
        assert line in listed(netns, NFT)
    assert on_a_worker(lambda fd: check(fd, redirect, NFT), netns) is None
    assert holds(netns, redirect)


def test_a_ruleset_is_compiled_once(netns: Netns, monkeypatch: pytest.MonkeyPatch) -> None:
    redirect = replace(Redirect(), exclude_inbound_ports=(Port(4711),))
    written(netns, redirect)
    monkeypatch.setattr(template, "Context", None)
    written(netns, redirect)
    assert holds(netns, redirect)


CHANGES = {
    "a rule less": "nft flush chain ip istio-cni-nat ISTIO_REDIRECT",
    "a rule more": "nft add rule ip6 istio-cni-nat OUTPUT accept",
    "a rule before": "nft insert rule ip istio-cni-nat ISTIO_OUTPUT accept",
    "a chain more": "nft add chain ip6 istio-cni-mangle X",
    "a set more": "nft add set ip istio-cni-nat X { type inet_service; }",
    "a table less": "nft delete table ip6 istio-cni-nat",
    "a table asleep": "nft add table ip istio-cni-nat { flags dormant; }",
    "a policy": "nft add chain ip istio-cni-nat OUTPUT { policy drop; }",
}


@pytest.mark.parametrize("change", CHANGES)
def test_any_difference_is_detected(netns: Netns, change: str) -> None:
    redirect = REDIRECTS["all options of TPROXY"]
    written(netns, redirect)
    assert holds(netns, redirect)
    tool, *words = CHANGES[change].split(maxsplit=1)
    inside(netns, tool, *words)
    assert not holds(netns, redirect)
    assert on_a_worker(lambda fd: check(fd, redirect, NFT), netns)
    written(netns, redirect)
    assert holds(netns, redirect)


def test_a_template_matches_what_libnftables_writes(netns: Netns) -> None:
    redirect = REDIRECTS["all options"]
    inside(netns, "nft", nft.transaction(ruleset(redirect)))
    assert holds(netns, redirect)


def test_a_template_that_the_kernel_refuses_is_recompiled(netns: Netns, monkeypatch: pytest.MonkeyPatch) -> None:
    redirect = replace(Redirect(families=BOTH), exclude_inbound_ports=(Port(4712),))
    rules = ruleset(redirect)
    compiled = on_a_worker(lambda _: template_of(rules), netns)
    assert compiled
    broken = compiled.batch.replace(
        b"ISTIO_REDIRECT", b"ISTIO_NOWHERES", 1
    )  # the chain has another name than the jumps
    monkeypatch.setitem(template._templates, rules, compiled._replace(batch=broken))
    written(netns, redirect)
    assert holds(netns, redirect)
    assert template._templates[rules] == compiled


def test_a_refused_batch_changes_nothing(netns: Netns) -> None:
    before, redirect = Redirect(), REDIRECTS["all options"]
    written(netns, before)

    def commit(fd: NetnsFd) -> None:
        compiled = template_of(ruleset(redirect))
        assert compiled
        with namespaces.entered(fd), Nfnetlink() as kernel:
            kernel.commit(compiled.batch.replace(b"ISTIO_REDIRECT", b"ISTIO_NOWHERES", 1))

    with pytest.raises(OSError, match="writing nftables") as error:
        on_a_worker(commit, netns)
    assert error.value.errno == errno.ENOENT
    assert holds(netns, before)


def test_an_uncacheable_ruleset_is_not_compiled(netns: Netns) -> None:
    large = replace(Redirect(), include_outbound=RANGES, exclude_outbound=RANGES)
    assert on_a_worker(lambda _: template_of(ruleset(large)), netns) is None
    written(netns, large)
    assert on_a_worker(lambda fd: check(fd, large, NFT), netns) is None


def test_a_netns_with_many_foreign_tables_is_left_to_libnftables(netns: Netns) -> None:
    inside(netns, "nft", "".join(f"add table ip others{number};" for number in range(template.MOST)))
    written(netns, Redirect())
    with pytest.raises(OSError, match="saw more than"):
        holds(netns, Redirect())
    assert on_a_worker(lambda fd: check(fd, Redirect(), NFT), netns) is None


def test_a_listing_that_changes_while_read_is_discarded(netns: Netns) -> None:
    redirect = REDIRECTS["all options of TPROXY"]
    written(netns, redirect)

    def read(fd: NetnsFd) -> None:
        compiled = template_of(ruleset(redirect))
        assert compiled
        with namespaces.entered(fd), Nfnetlink() as kernel, Nfnetlink() as other:
            messages = kernel.listed(GETRULE)
            next(messages)
            other.commit(compiled.batch)
            list(messages)

    with pytest.raises(InterruptedError):
        on_a_worker(read, netns)


def test_a_thread_stays_in_a_pods_netns_while_a_ruleset_is_compiled(netns: Netns) -> None:
    here = Path("/proc/thread-self/ns/net")

    def look(fd: NetnsFd) -> None:
        home = here.stat()
        with namespaces.entered(fd):
            template_of(ruleset(replace(Redirect(), exclude_inbound_ports=(Port(4713),))))
            assert here.samefile(f"/proc/self/fd/{fd}")
        assert here.stat() == home

    on_a_worker(look, netns)


def test_without_a_scratch_netns_libnftables_writes_the_rules(netns: Netns, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise OSError(errno.ENOSPC, "unshare: no space left")

    monkeypatch.setattr(namespaces, "scratch", none)
    redirect = replace(Redirect(), exclude_inbound_ports=(Port(4714),))
    written(netns, redirect)
    assert on_a_worker(lambda fd: check(fd, redirect, NFT), netns) is None


def test_rules_that_both_paths_refuse_are_reported_with_their_line(
    netns: Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nft, "PRIORITIES", dict.fromkeys(nft.PRIORITIES, "none"))
    with pytest.raises(ApplyError, match=r"nft: line [0-9]+: .*\n(.*\n)*> [0-9]+: type nat hook"):
        written(netns, replace(Redirect(), exclude_inbound_ports=(Port(4715),)))
    assert "ISTIO" not in listed(netns, NFT)


def test_threads_that_need_one_template_at_the_same_time_wait_for_it(netns: Netns) -> None:
    rules = ruleset(replace(Redirect(), exclude_inbound_ports=(Port(4716),)))
    with ThreadPoolExecutor(4) as workers:
        made = list(workers.map(template_of, [rules] * 8))
    assert made[0]
    assert all(each is made[0] for each in made)

"""A netns counts as redirected only if what the pod sends is led to a redirect of the mesh: half a redirect has chains, too."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from plugin import detect, iptables
from plugin.apply import ApplyError, apply, check
from plugin.backend import Backend
from plugin.detect import redirected
from plugin.redirect import Family, Mode, Redirect
from plugin.rules import ruleset
from tests.redirect.test_kernel import inside, on_a_worker
from tests.repair.test_families import OF_ISTIO
from tests.support.netns import Netns

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.kernel

BOTH = frozenset(Family)
COMMANDS = {Family.V4: "iptables", Family.V6: "ip6tables"}
WHOLE = Redirect(families=tuple(Family), mode=Mode.TPROXY, dns_capture=True, drop_invalid=True)  # in all tables
VARIANTS = {Backend.IPTABLES_NFT: "nft", Backend.IPTABLES_LEGACY: "legacy"}
SIDECAR = "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001\n"
OUTPUT = "-A OUTPUT -p tcp -j ISTIO_OUTPUT\n"
CHAINS = ":ISTIO_REDIRECT - [0:0]\n:ISTIO_OUTPUT - [0:0]\n"
BY_IPTABLES = {  # what istio-init has written in nat when it is ended, or others have
    "chains": CHAINS,
    "a redirect to which nothing leads": CHAINS + SIDECAR,
    "a jump to an empty chain": CHAINS + SIDECAR + OUTPUT,
    "a jump to a chain that leaves all alone": CHAINS + SIDECAR + OUTPUT + "-A ISTIO_OUTPUT -j RETURN\n",
    "what comes in alone": CHAINS + SIDECAR + "-A PREROUTING -p tcp -j ISTIO_REDIRECT\n",
    "a redirect of others": ":OTHERS - [0:0]\n-A OTHERS -p tcp -j REDIRECT --to-ports 53\n-A OUTPUT -j OTHERS\n",
    "a redirect of others beside it": CHAINS + OUTPUT + "-A OUTPUT -p tcp -j REDIRECT --to-ports 53\n",
}
BY_NFT = {
    "a table": "add table inet istio-proxy-nat",
    "a chain": "add table inet istio-proxy-nat; add chain inet istio-proxy-nat output",
    "a chain that is entered": OF_ISTIO.rpartition("; add rule")[0],
    "rules that nothing enters": OF_ISTIO.replace("{ type nat hook output priority -100 ; policy accept ; }", ""),
    "what comes in alone": OF_ISTIO.replace("hook output", "hook prerouting"),
    "another table": OF_ISTIO.replace("istio-proxy-nat", "others"),
}


@pytest.fixture
def netns(tmp_path: Path) -> Iterator[Netns]:
    with Netns(tmp_path / "netns") as made:
        yield made


def seen(netns: Netns) -> frozenset[Family]:
    return on_a_worker(lambda fd: redirected(fd, tuple(Family)), netns)


def restore(netns: Netns, family: Family, variant: str, text: str) -> None:
    command = [
        "/usr/bin/nsenter",
        f"--net={netns.path}",
        f"/usr/sbin/{COMMANDS[family]}-{variant}-restore",
        "--noflush",
    ]
    subprocess.run(command, input=text, text=True, check=True)


def tables(text: str) -> list[str]:
    """Split the input of iptables-restore into its transactions."""
    return [f"{each}COMMIT\n" for each in text.split("COMMIT\n")[:-1]]


def of_iptables(text: str) -> str:
    return f"*nat\n{text}COMMIT\n"


@pytest.mark.parametrize("next_one", Backend, ids=lambda each: each.value)
@pytest.mark.parametrize("killed", VARIANTS, ids=lambda each: each.value)
def test_a_redirect_of_which_only_some_tables_are_written_does_not_count_and_is_completed(
    netns: Netns, killed: Backend, next_one: Backend
) -> None:
    for family in Family:
        *some, _ = tables(iptables.transaction(ruleset(WHOLE), family, ""))
        for each in some:
            restore(netns, family, VARIANTS[killed], each)
            assert seen(netns) == frozenset()
    on_a_worker(lambda fd: apply(fd, WHOLE, next_one, inhabited=True).free(), netns)
    assert seen(netns) == BOTH
    assert on_a_worker(lambda fd: check(fd, WHOLE, next_one), netns) is None


@pytest.mark.parametrize("killed", VARIANTS, ids=lambda each: each.value)
def test_of_a_redirect_of_two_families_the_written_one_counts(netns: Netns, killed: Backend) -> None:
    on_a_worker(lambda fd: apply(fd, replace(WHOLE, families=(Family.V6,)), killed).free(), netns)
    assert seen(netns) == {Family.V6}


@pytest.mark.parametrize("killed", VARIANTS, ids=lambda each: each.value)
def test_a_redirect_that_is_half_removed_does_not_count(netns: Netns, killed: Backend) -> None:
    on_a_worker(lambda fd: apply(fd, WHOLE, killed).free(), netns)
    left = set(Family)
    for family in Family:
        saved = inside(netns, f"{COMMANDS[family]}-{VARIANTS[killed]}-save")
        first, *others = tables(iptables.removal(saved))
        assert len(others) == 2
        restore(netns, family, VARIANTS[killed], first)
        left.discard(family)
        assert seen(netns) == left


@pytest.mark.parametrize("variant", VARIANTS.values())
@pytest.mark.parametrize("case", BY_IPTABLES)
def test_chains_of_iptables_that_redirect_nothing_do_not_count(netns: Netns, variant: str, case: str) -> None:
    for family in Family:
        restore(netns, family, variant, of_iptables(BY_IPTABLES[case]))
    assert seen(netns) == frozenset()


@pytest.mark.parametrize("case", BY_NFT)
def test_tables_and_chains_of_nftables_that_redirect_nothing_do_not_count(netns: Netns, case: str) -> None:
    inside(netns, "nft", BY_NFT[case])
    assert seen(netns) == frozenset()


@pytest.mark.parametrize("variant", VARIANTS.values())
def test_a_redirect_of_istio_init_counts(netns: Netns, variant: str) -> None:
    deep = CHAINS + SIDECAR + "".join(f":ISTIO_{each} - [0:0]\n" for each in "ABC")
    order = zip(("OUTPUT", *"ABC"), (*"ABC", "REDIRECT"), strict=True)
    way = "".join(f"-A ISTIO_{one} -p tcp -j ISTIO_{other}\n" for one, other in order)
    restore(netns, Family.V4, variant, of_iptables(deep + way + "-A OUTPUT -o lo -j ACCEPT\n" + OUTPUT))
    assert seen(netns) == {Family.V4}


@pytest.mark.parametrize("backend", Backend, ids=lambda each: each.value)
@pytest.mark.parametrize("redirect", [Redirect(), WHOLE, Redirect(include_outbound=(), include_inbound_ports=())])
def test_each_redirect_of_ours_counts(netns: Netns, backend: Backend, redirect: Redirect) -> None:
    on_a_worker(lambda fd: apply(fd, redirect, backend).free(), netns)
    assert seen(netns) == frozenset(redirect.families)


@pytest.mark.parametrize("variant", VARIANTS.values())
def test_a_netns_with_more_rules_than_are_examined_is_not_inspected(
    netns: Netns, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detect, "MOST_RULES", 100)
    many = "".join(f"-A OUTPUT -p tcp --dport {port} -j ACCEPT\n" for port in range(1, 102))
    restore(netns, Family.V4, variant, of_iptables(many))
    with pytest.raises(ApplyError, match=r"is not inspected: .*more than 100 rules"):
        seen(netns)

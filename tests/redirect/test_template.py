"""Rules compiled once and replayed (D12): the kernel holds the same, any difference is detected, no pod waits (F37)."""

from __future__ import annotations

import errno
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from plugin import apply as applying
from plugin import netns as namespaces
from plugin import nfnetlink, nft, session_replay, template
from plugin.apply import ApplyError, apply, check
from plugin.backend import Backend
from plugin.netlink import Message
from plugin.netns import NetnsFd
from plugin.nfnetlink import GETRULE, NEWRULE, NEWTABLE, NFPROTO, Nfnetlink
from plugin.redirect import Family, Mode, Redirect
from plugin.rulecount import LARGE
from plugin.rules import ruleset
from plugin.ruleset import Ruleset
from plugin.session_replay import ReplaySession
from plugin.template import Held, Template, compile_now, template_of
from plugin.values import Port
from tests.redirect.test_kernel import BOTH, REDIRECTS, inside, listed, on_a_worker
from tests.redirect.ways import CompiledSession
from tests.support.netns import Netns, UserNetns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from plugin.ruleset import Table

pytestmark = pytest.mark.kernel

NFT = Backend.NFT
NFTA_TABLE_FLAGS, NFT_TABLE_F_OWNER = 2, 2  # linux/netfilter/nf_tables.h
PATIENCE = 60.0  # seconds, after which something never happens
_ports = map(Port, count(4711))


@pytest.fixture(params=[Netns, UserNetns], ids=["netns", "hostUsers: false"])
def netns(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Netns]:
    with request.param(tmp_path / "netns") as made:
        yield made


@pytest.fixture
def without_libnftables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nobody but the compiler load it, and each ruleset compiled before it is used."""

    def refuse(*, inhabited: bool) -> None:
        raise AssertionError(f"libnftables was asked, {inhabited=}")

    monkeypatch.setattr(session_replay, "NftSession", refuse)
    for sessions in ("SESSIONS", "INHABITED"):
        monkeypatch.setattr(applying, sessions, {NFT: CompiledSession})


def unused() -> Redirect:
    """Make a redirect that no test has used."""
    return replace(Redirect(), exclude_inbound_ports=(next(_ports),))


class HeldUp(tuple["Table", ...]):
    """The tables of a default pod, which a compiler, in a netns of its own, can read only when it is let."""

    def __new__(cls, pod: Netns, families: tuple[Family, ...] = (Family.V4,)) -> Self:
        made = super().__new__(cls, ruleset(Redirect(families=families)).tables)
        made.pod, made.reached, made.go = pod.path, threading.Event(), threading.Event()
        return made

    pod: Path
    reached: threading.Event
    go: threading.Event

    def __iter__(self) -> Iterator[Table]:
        if not Path("/proc/thread-self/ns/net").samefile(self.pod):
            self.reached.set()
            assert self.go.wait(PATIENCE)
        return super().__iter__()


def replay(fd: NetnsFd, *several: Ruleset) -> None:
    """Write rulesets one after the other as `apply` does, and close."""
    for rules in several:
        with namespaces.entered(fd):
            session = ReplaySession()
            session.replace(rules)
        session.close()


def compiled(rules: Ruleset) -> Template:
    if not template_of(rules):
        compile_now(rules)
    found = template_of(rules)
    assert found
    return found


def written(netns: Netns, redirect: Redirect) -> None:
    on_a_worker(lambda fd: apply(fd, redirect, NFT).free(), netns)


def holds(netns: Netns, redirect: Redirect) -> bool:
    """Whether the netns holds the very bytes."""

    def look(fd: NetnsFd) -> bool:
        with namespaces.entered(fd), Nfnetlink() as kernel:
            return compiled(ruleset(redirect)).is_held(kernel)

    return on_a_worker(look, netns)


@pytest.mark.usefixtures("without_libnftables")
@pytest.mark.parametrize("case", REDIRECTS)
def test_a_replayed_template_equals_the_rendered_rules(netns: Netns, case: str) -> None:
    redirect = REDIRECTS[case]
    inside(netns, "nft", "add table ip others")
    for before in (REDIRECTS["all options of TPROXY"], redirect, redirect):
        written(netns, before)
    found = listed(netns, NFT)
    assert found.startswith("table ip others {\n}\n")
    assert [line for line in nft.listing(ruleset(redirect)).splitlines() if line not in found] == []
    assert on_a_worker(lambda fd: check(fd, redirect, NFT), netns) is None
    assert holds(netns, redirect)


def test_a_ruleset_is_compiled_at_its_second_use_and_replayed_from_then_on(
    netns: Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    redirect = unused()
    rules = ruleset(redirect)
    written(netns, redirect)
    assert template_of(rules) is None
    written(netns, redirect)
    assert template_of(rules)
    monkeypatch.setattr(session_replay, "NftSession", None)
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


@pytest.mark.slow
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


def test_one_message_with_the_bytes_of_two_is_a_difference() -> None:
    one, other = (Message(NEWRULE, bytes((2, 0, 0, 0)) + nfnetlink.string(1, each)) for each in ("istio", "cni"))
    held = Held.of([one, other])
    assert held.is_said_by([one, other])
    assert not held.is_said_by([Message(NEWRULE, one.body + other.body)])


def test_nothing_is_deleted_from_a_netns_that_holds_nothing_of_ours(
    netns: Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever closes the socket after a deletion waits for the kernel (D4)."""
    redirect, sent, commit = unused(), list[bytes](), Nfnetlink.commit
    other = replace(redirect, mode=Mode.TPROXY)
    made = on_a_worker(lambda _: compiled(ruleset(redirect)), netns)
    stale = on_a_worker(lambda _: compiled(ruleset(other)), netns)
    inside(netns, "nft", "add table ip others")

    def noted(kernel: Nfnetlink, batch: bytes) -> None:
        if batch in (
            made.first,
            made.batch,
            stale.first,
            stale.batch,
        ):  # a thread may compile what another test has used
            sent.append(batch)
        commit(kernel, batch)

    monkeypatch.setattr(Nfnetlink, "commit", noted)
    for each in (redirect, redirect, other, redirect):
        written(netns, each)
        assert holds(netns, each)
    assert sent == [made.first, made.batch, stale.batch, made.batch]
    assert "mangle" not in listed(netns, NFT)


def test_rules_that_another_request_has_written_meanwhile_are_not_written_twice(netns: Netns) -> None:
    redirect = unused()
    written(netns, redirect)

    def commit(fd: NetnsFd) -> None:
        with namespaces.entered(fd), Nfnetlink() as kernel:
            kernel.commit(compiled(ruleset(redirect)).first)

    with pytest.raises(FileExistsError):
        on_a_worker(commit, netns)
    assert holds(netns, redirect)


def test_a_template_matches_what_libnftables_writes(netns: Netns) -> None:
    redirect = REDIRECTS["all options"]
    inside(netns, "nft", nft.transaction(ruleset(redirect)))
    assert holds(netns, redirect)


def test_a_template_that_the_kernel_refuses_serves_others_until_it_is_compiled_again(
    netns: Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = HeldUp(netns, BOTH)
    rules = Ruleset(tables)
    tables.go.set()
    for _ in range(2):
        on_a_worker(lambda fd: replay(fd, rules), netns)
    good = template_of(rules)
    assert good
    broken = good._replace(batch=good.batch.replace(b"ISTIO_REDIRECT", b"ISTIO_NOWHERES", 1))  # no jump finds the chain
    monkeypatch.setitem(template._templates, rules, broken)
    tables.go.clear()
    tables.reached.clear()
    with ThreadPoolExecutor(1) as pods, netns.path.open("rb") as file:
        pod = pods.submit(replay, NetnsFd(file.fileno()), rules)
        assert tables.reached.wait(PATIENCE)
        assert template_of(rules) is broken
        tables.go.set()
        pod.result()
    assert template_of(rules) == good
    assert holds(netns, Redirect(families=BOTH))


def test_a_netns_that_refuses_a_template_takes_it_from_no_other_pod(netns: Netns) -> None:
    """A process of the pod owns a table of our name, which nobody else may delete: libnftables is refused as well."""
    redirect = unused()
    rules = ruleset(redirect)
    before = on_a_worker(lambda _: compiled(rules), netns)
    owned = struct.pack("HH", 8, NFTA_TABLE_FLAGS) + NFT_TABLE_F_OWNER.to_bytes(4, "big")
    table = bytes((NFPROTO[Family.V4], 0, 0, 0)) + nfnetlink.string(nfnetlink.NFTA_TABLE_NAME, "istio-cni-nat") + owned

    def own(fd: NetnsFd) -> Nfnetlink:
        with namespaces.entered(fd):
            kernel = Nfnetlink()
            kernel.commit(nfnetlink.batch([Message(NEWTABLE, table)]))
            return kernel

    with on_a_worker(own, netns):
        for _ in range(3):
            with pytest.raises(ApplyError, match="Operation not permitted"):
                written(netns, redirect)
            assert template_of(rules) is before
    written(netns, redirect)
    assert holds(netns, redirect)


def test_a_refused_batch_changes_nothing(netns: Netns) -> None:
    before, redirect = Redirect(), REDIRECTS["all options"]
    written(netns, before)

    def commit(fd: NetnsFd) -> None:
        with namespaces.entered(fd), Nfnetlink() as kernel:
            kernel.commit(compiled(ruleset(redirect)).batch.replace(b"ISTIO_REDIRECT", b"ISTIO_NOWHERES", 1))

    with pytest.raises(OSError, match="writing nftables") as error:
        on_a_worker(commit, netns)
    assert error.value.errno == errno.ENOENT
    assert holds(netns, before)


def test_a_large_ruleset_is_not_compiled(netns: Netns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template, "compile_now", None)
    large = replace(Redirect(), exclude_inbound_ports=tuple(map(Port, range(1, LARGE))))
    for _ in range(3):
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
        batch = compiled(ruleset(redirect)).batch
        with namespaces.entered(fd), Nfnetlink() as kernel, Nfnetlink() as other:
            messages = kernel.listed(GETRULE)
            next(messages)
            other.commit(batch)
            list(messages)

    with pytest.raises(InterruptedError):
        on_a_worker(read, netns)


def test_a_thread_stays_in_a_pods_netns_while_a_ruleset_is_compiled(netns: Netns) -> None:
    here = Path("/proc/thread-self/ns/net")

    def look(fd: NetnsFd) -> None:
        home = here.stat()
        with namespaces.entered(fd):
            compile_now(ruleset(unused()))
            assert here.samefile(f"/proc/self/fd/{fd}")
        assert here.stat() == home

    on_a_worker(look, netns)


def test_without_a_scratch_netns_libnftables_writes_the_rules(netns: Netns, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise OSError(errno.ENOSPC, "unshare: no space left")

    monkeypatch.setattr(namespaces, "scratch", none)
    redirect = unused()
    for _ in range(3):
        written(netns, redirect)
    assert on_a_worker(lambda fd: check(fd, redirect, NFT), netns) is None
    monkeypatch.undo()
    written(netns, redirect)
    assert template_of(ruleset(redirect))


def test_rules_that_both_paths_refuse_are_reported_with_their_line(
    netns: Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nft, "PRIORITIES", dict.fromkeys(nft.PRIORITIES, "none"))
    with pytest.raises(ApplyError, match=r"nft: line [0-9]+: .*\n(.*\n)*> [0-9]+: type nat hook"):
        written(netns, unused())
    assert "ISTIO" not in listed(netns, NFT)


def test_no_pod_waits_for_the_compilation_of_another_pods_ruleset(tmp_path: Path) -> None:  # F37
    default, own = Redirect(), unused()
    with Netns(tmp_path / "one") as one, Netns(tmp_path / "other") as other, ThreadPoolExecutor(2) as pods:
        for _ in range(2):
            written(other, default)
        tables = HeldUp(one)
        rules = Ruleset(tables)
        first = pods.submit(on_a_worker, lambda fd: replay(fd, rules, rules), one)
        try:
            assert tables.reached.wait(PATIENCE)
            for redirect in (default, own, own, own):
                pods.submit(written, other, redirect).result(PATIENCE)
            assert template_of(ruleset(own)) is None  # one is compiled at a time
        finally:
            tables.go.set()
        first.result()
        assert template_of(rules)
        written(other, own)
        assert template_of(ruleset(own))

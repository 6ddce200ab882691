"""The kernel holds exactly the rendered rules of each backend; CHECK detects changes; a failure leaves nothing."""

from __future__ import annotations

import ipaddress
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import pytest

from plugin import apply as applying
from plugin import iptables, nft
from plugin.apply import ApplyError, apply, check
from plugin.backend import Backend, Capability, choose
from plugin.netns import NetnsFd
from plugin.preflight import try_backend
from plugin.redirect import Family, Feature, Mode, Redirect
from plugin.rules import ruleset
from plugin.ruleset import Chain, Hook, Jump, Kind, Protocol, RedirectTo, Rule, Ruleset, Table
from plugin.values import Interface, Port
from tests.support.netns import Netns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.kernel

_T = TypeVar("_T")
BOTH = (Family.V4, Family.V6)
ALL_OPTIONS = Redirect(
    families=BOTH,
    include_inbound_ports=(Port(80), Port(8080)),
    include_outbound=tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "127.0.0.0/8", "fd00::/8", "::ffff:10.0.0.0/104"))),
    exclude_outbound=tuple(map(ipaddress.ip_network, ("10.1.0.0/16", "0.0.0.0/0", "::/0"))),
    include_outbound_ports=(Port(443),),
    exclude_outbound_ports=(Port(22),),
    exclude_interfaces=(Interface("net1"), Interface("net-2_x.7")),
    reroute_interfaces=(Interface("k6t-1"),),
    dns_capture=True,
    drop_invalid=True,
)
REDIRECTS = {
    "defaults": Redirect(),
    "dual stack": Redirect(families=BOTH),
    "all options": ALL_OPTIONS,
    "all options of TPROXY": replace(ALL_OPTIONS, mode=Mode.TPROXY),
    "nothing inbound, TPROXY": Redirect(families=BOTH, mode=Mode.TPROXY, include_inbound_ports=()),
}
LISTED_BY = {
    Backend.NFT: ((("nft", "-s", "-y", "list", "ruleset"),)),
    Backend.IPTABLES_NFT: (("iptables-nft-save",), ("ip6tables-nft-save",)),
    Backend.IPTABLES_LEGACY: (("iptables-legacy-save",), ("ip6tables-legacy-save",)),
}
FOREIGN = {
    Backend.NFT: "nft add table ip others",
    Backend.IPTABLES_NFT: "iptables-nft -t nat -A OUTPUT -p tcp -m tcp --dport 7 -j ACCEPT",
    Backend.IPTABLES_LEGACY: "iptables-legacy -t nat -A OUTPUT -p tcp -m tcp --dport 7 -j ACCEPT",
}


@pytest.fixture
def netns(tmp_path: Path) -> Iterator[Netns]:
    with Netns(tmp_path / "netns") as made:
        yield made


def on_a_worker(work: Callable[[NetnsFd], _T], netns: Netns) -> _T:
    with netns.path.open("rb") as file, ThreadPoolExecutor(1) as worker:
        return worker.submit(work, NetnsFd(file.fileno())).result()


def inside(netns: Netns, tool: str, *words: str) -> str:
    command = ["/usr/bin/nsenter", f"--net={netns.path}", f"/usr/sbin/{tool}", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def listed(netns: Netns, backend: Backend) -> str:
    """List all that the kernel holds, without counters and comments."""
    texts = (inside(netns, *command) for command in LISTED_BY[backend])
    return "".join(f"{line}\n" for text in texts for line in text.splitlines() if not line.startswith("#"))


@pytest.mark.parametrize("case", REDIRECTS)
def test_the_kernel_holds_the_rendered_rules_after_any_number_of_applies(
    netns: Netns, backend: Backend, case: str
) -> None:
    redirect = REDIRECTS[case]
    rules = ruleset(redirect)
    inside(netns, *FOREIGN[backend].split())
    for _ in range(2):
        on_a_worker(lambda fd: apply(fd, redirect, backend).free(), netns)
    if backend is Backend.NFT:
        assert listed(netns, backend) == "table ip others {\n}\n" + nft.listing(rules)
    else:
        for family, command in zip(redirect.families, LISTED_BY[backend], strict=False):
            saved = inside(netns, *command)
            assert iptables.own_listing(saved) == iptables.listing(rules, family)
        assert "-A OUTPUT -p tcp -m tcp --dport 7 -j ACCEPT\n" in listed(netns, backend)
    assert on_a_worker(lambda fd: check(fd, redirect, backend), netns) is None


@pytest.mark.parametrize("backend", [Backend.IPTABLES_NFT, Backend.IPTABLES_LEGACY])
def test_what_a_pod_writes_into_a_comment_is_not_repeated_to_iptables(netns: Netns, backend: Backend) -> None:
    """A comment may have lines, and iptables-save lists them as they are: one that looks like a rule of ours, and more."""
    looks_like_ours = "\n-A PREROUTING -M /tmp/any -m comment --comment istio-cni -j ACCEPT\n"
    tool = LISTED_BY[backend][0][0].removesuffix("-save")
    comment = ("-m", "comment", "--comment", looks_like_ours)
    inside(netns, tool, "-t", "nat", "-A", "PREROUTING", *comment, "-j", "ACCEPT")
    saved = inside(netns, f"{tool}-save")
    assert looks_like_ours.strip() in saved.splitlines()
    assert "-M" not in iptables.transaction(ruleset(Redirect()), Family.V4, saved) + iptables.removal(saved)
    on_a_worker(lambda fd: apply(fd, Redirect(), backend).free(), netns)
    assert on_a_worker(lambda fd: check(fd, Redirect(), backend), netns) is None


@pytest.mark.parametrize("command", ["ip rule", "ip -6 rule"])
def test_the_routing_rule_of_tproxy_is_added_once(netns: Netns, backend: Backend, command: str) -> None:
    for _ in range(3):
        on_a_worker(lambda fd: apply(fd, REDIRECTS["all options of TPROXY"], backend).free(), netns)
    assert inside(netns, *command.split()).count("lookup 133") == 1


def test_applying_replaces_earlier_rules(netns: Netns, backend: Backend) -> None:
    for each in (REDIRECTS["all options of TPROXY"], Redirect(families=BOTH)):
        on_a_worker(lambda fd, redirect=each: apply(fd, redirect, backend).free(), netns)  # type: ignore[misc]
    assert "ISTIO_TPROXY" not in listed(netns, backend)
    assert "net1" not in listed(netns, backend)


@pytest.mark.parametrize(
    ("backend", "change", "named"),
    [
        (Backend.NFT, "nft flush chain ip istio-cni-nat ISTIO_REDIRECT", "'meta l4proto tcp redirect to :15001'"),
        (Backend.NFT, "nft add chain ip6 istio-cni-mangle X", "saw 'chain X {'"),
        (Backend.IPTABLES_NFT, "iptables-nft -t nat -D OUTPUT 1", "iptables: line"),
        (Backend.IPTABLES_LEGACY, "ip6tables-legacy -t mangle -F ISTIO_DIVERT", "ip6tables: line"),
        (Backend.NFT, "ip rule del fwmark 0x539 lookup 133", "ip rule: fwmark 0x539 lookup 133 is not there"),
        (Backend.IPTABLES_LEGACY, "ip -6 route flush table 133", "ip -6 route: local default dev lo table 133 is not"),
    ],
)
def test_check_names_the_first_difference(netns: Netns, backend: Backend, change: str, named: str) -> None:
    redirect = replace(REDIRECTS["all options of TPROXY"], exclude_interfaces=())
    on_a_worker(lambda fd: apply(fd, redirect, backend).free(), netns)
    inside(netns, *change.split())
    assert named in str(on_a_worker(lambda fd: check(fd, redirect, backend), netns))


def test_check_of_a_netns_without_rules_says_so(netns: Netns, backend: Backend) -> None:
    assert on_a_worker(lambda fd: check(fd, Redirect(), backend), netns)


def test_a_failed_apply_leaves_no_rules_and_shows_the_failing_lines(
    netns: Netns, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel refuses the last rule: it redirects, but in a table that is not nat."""

    def broken(redirect: Redirect) -> Ruleset:
        good = ruleset(redirect)
        wrong = Chain("ISTIO_DROP", (Rule(protocol=Protocol.TCP, target=RedirectTo(Port(15001))),))
        output = Chain("OUTPUT", (Rule(target=Jump("ISTIO_DROP")),), Hook.OUTPUT)
        last = Table(Family.V6, Kind.MANGLE, (wrong, output))
        return replace(good, tables=(*(each for each in good.tables if each.family is Family.V4), last))

    inside(netns, "ip", "link", "set", "lo", "up")
    before = [listed(netns, backend), inside(netns, "ip", "-6", "address"), inside(netns, "ip", "rule")]
    monkeypatch.setattr(applying, "ruleset", broken)
    with pytest.raises(ApplyError) as error:
        on_a_worker(lambda fd: apply(fd, REDIRECTS["all options of TPROXY"], backend), netns)
    assert re.search(
        r"\n> [0-9]+: .*(redirect to :15001|REDIRECT --to-ports 15001|jump ISTIO_DROP|COMMIT)", str(error.value)
    )
    assert "ISTIO_" not in listed(netns, backend)
    after = [before[0], inside(netns, "ip", "-6", "address"), inside(netns, "ip", "rule")]
    assert after == before


@pytest.mark.parametrize("name", ["all", "lo"])
def test_ipv6_rules_are_written_while_ipv6_is_off(netns: Netns, backend: Backend, name: str) -> None:
    """TPROXY's route by lo cannot be: what is not addressed to the pod goes nowhere, as long as that is so."""
    redirect = REDIRECTS["all options of TPROXY"]
    inside(netns, "sysctl", "-w", f"net.ipv6.conf.{name}.disable_ipv6=1")
    for _ in range(2):
        applied = on_a_worker(lambda fd: apply(fd, redirect, backend), netns)
        applied.free()
        assert "IPv6 does not pass the sidecar until it is on for lo: " in applied.notes[0]
    assert "blackhole default dev lo" in inside(netns, "ip", "-6", "route", "show", "table", "133")
    assert on_a_worker(lambda fd: check(fd, redirect, backend), netns) is None
    applied = on_a_worker(lambda fd: apply(fd, Redirect(), backend), netns)
    applied.free()
    assert applied.notes == ()


def test_this_node_supports_every_backend(backend: Backend) -> None:
    with ThreadPoolExecutor(1) as worker:
        assert worker.submit(try_backend, backend).result() == Capability(backend)


def test_the_backend_that_lacks_the_fewest_features_is_chosen() -> None:
    whole = [Capability(each) for each in Backend]
    assert choose(whole).backend is Backend.NFT
    lacking = Capability(Backend.NFT, {Feature.TPROXY: "no"})
    assert choose([lacking, *whole[1:]]).backend is Backend.IPTABLES_NFT
    none = [Capability(each, {Feature.NAT: "no"}) for each in Backend]
    assert (
        choose([none[0], Capability(Backend.IPTABLES_LEGACY, dict.fromkeys(list(Feature)[1:], "no"))]).unusable is None
    )
    assert choose(none).unusable == "no"


HIDDEN = 'mount --bind /dev/null /etc/protocols; exec "$0" -c "$1"'
TRIED = """
from concurrent.futures import ThreadPoolExecutor
from plugin.backend import Backend
from plugin.preflight import try_backend
with ThreadPoolExecutor(1) as worker:
    print(worker.submit(try_backend, Backend.NFT).result())
"""


def test_nft_needs_no_etc_protocols() -> None:  # which an image may lack; libnftables then names no protocol
    command = [
        "/usr/bin/unshare",
        "--mount",
        "--propagation=private",
        "/bin/sh",
        "-ec",
        HIDDEN,
        sys.executable,
        TRIED,
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == "nft (has all features)\n"

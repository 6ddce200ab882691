"""Which families are redirected, given prevResult and the netns: no bypass of the sidecar goes unreported (F38)."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

import pytest

from plugin.apply import ApplyError
from plugin.backend import Backend, Capability
from plugin.decision import decide
from plugin.families import in_order, is_due, why
from plugin.parameters import Defaults, Ipv6
from plugin.pod import Pod
from plugin.program import Plan, Programmed, check, program
from plugin.redirect import Family, Feature, Redirect
from tests.redirect.machines import Machines
from tests.redirect.probes import APPLICATION, Place, Probe

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kernel


V4, V6, OTHER_V6, LINK_LOCAL = map(ipaddress.ip_address, ("10.0.0.1", "fd00::1", "2001:db8::1", "fe80::1"))
LO, PASS_THROUGH = ipaddress.ip_address("::1"), ipaddress.ip_address("::6")
ANNOTATIONS = {"sidecar.istio.io/status": "{}", "traffic.sidecar.istio.io/includeInboundPorts": "*"}
LATE = "fd09::99"


def plan(*said: str, dual_stack: bool = False, ipv6: Ipv6 = Ipv6.AUTO) -> Plan:
    """Decide about a pod as the agent does, of which prevResult has these addresses."""
    env = [{"name": "ISTIO_DUAL_STACK", "value": "true"}] if dual_stack else []
    spec = {"containers": [{"name": "app"}, {"name": "istio-proxy", "env": env}]}
    pod = Pod.from_manifest({"metadata": {"name": "web", "annotations": ANNOTATIONS}, "spec": spec})
    addresses, defaults = tuple(map(ipaddress.ip_address, said)), Defaults(ipv6=ipv6)
    verdict = decide(pod, addresses, defaults)
    assert isinstance(verdict, Redirect)
    return Plan(verdict, addresses, lambda known: decide(pod, known, defaults), ipv6)


@pytest.mark.parametrize(
    ("said", "there", "expected"),
    [
        ((V4,), (V4, LINK_LOCAL, LO), (V4,)),
        ((V6, V4), (V4, V6), (V6, V4)),
        ((V4,), (V6, V4), (V4, V6)),
        ((V4,), (), (V4,)),
        ((), (V4,), (V4,)),
        ((), (V4, V6), (V6, V4)),  # which is the first family is not known: it may be IPv6
        ((V4,), (OTHER_V6,), (OTHER_V6, V4)),  # prevResult is of no network that is there
        ((LINK_LOCAL,), (V4,), (V4,)),
        ((), (LINK_LOCAL, LO, PASS_THROUGH), None),
        ((), (), None),
    ],
)
def test_the_first_family_comes_first(said: Any, there: Any, expected: Any) -> None:
    assert in_order(said, there) == expected


def test_ipv6_is_redirected_given_an_address_or_the_setting() -> None:
    assert [is_due(each, Ipv6.AUTO) for each in ((V4, V6), (V4,), (V4, LINK_LOCAL), None)] == [True, *[False] * 3]
    assert is_due((V4,), Ipv6.ALWAYS)


@pytest.mark.parametrize(
    ("families", "addresses", "setting", "reason"),
    [
        ((Family.V4,), (V4,), "auto", "IPv4, as its first address is 10.0.0.1 and ISTIO_DUAL_STACK is not true"),
        ((Family.V4, Family.V6), (V4,), "auto", "IPv4 and IPv6, as ISTIO_DUAL_STACK is true"),
        ((Family.V4, Family.V6), (V6,), "auto", "IPv4 and IPv6, as it has the address fd00::1"),
        ((Family.V4, Family.V6), None, "auto", "IPv4 and IPv6, as its addresses are not known yet"),
        ((Family.V4,), (V6,), "never", "IPv4, as the agent's setting ipv6 is never"),
    ],
)
def test_the_families_and_their_reason_are_stated(families: Any, addresses: Any, setting: str, reason: str) -> None:
    assert why(Redirect(families=families), addresses, Ipv6(setting)) == reason


class PodNetns:
    """The pod of the machines, whose addresses a test chooses."""

    def __init__(self, machines: Machines, backend: Backend) -> None:
        self.machines, self.capability = machines, Capability(backend)

    def ip(self, *words: str) -> None:
        self.machines.inside("pod", ["/usr/sbin/ip", *words])

    def without(self, family: Family) -> None:
        """Take its addresses of a family away."""
        for name in ("eth0", "net1"):
            self.ip("-4" if family is Family.V4 else "-6", "address", "flush", "dev", name, "scope", "global")

    def program(self, given: Plan) -> Programmed:
        programmed = self.machines.on_worker(lambda fd: program(fd, given, self.capability))
        programmed.free()
        return programmed

    def check(self, given: Plan) -> str | None:
        return self.machines.on_worker(lambda fd: check(fd, given, self.capability))

    def outbound(self, *families: Family) -> list[int | None]:
        """Send from the application: the ports at which that arrives."""
        probes = [Probe(family, 80, APPLICATION, Place.PEER) for family in families]
        return [each.port for each in self.machines.send(probes)]


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """Machines of our own, as their addresses come and go."""
    with Machines(tmp_path_factory.mktemp("machines")) as made:
        yield made


@pytest.fixture
def netns(machines: Machines, backend: Backend) -> Iterator[PodNetns]:
    made = PodNetns(machines, backend)
    yield made
    machines.reset(backend)


def test_without_prev_result_the_addresses_in_the_netns_count(netns: PodNetns) -> None:
    """An IPv6 pod, and one of both families of which nobody knows the first: its sidecar may listen on IPv6."""
    for taken in (None, Family.V4):
        if taken:
            netns.without(taken)
        settled = netns.program(plan()).settled
        assert settled.redirect.families == (Family.V4, Family.V6)
        assert settled.notes[0].startswith("IPv4 and IPv6, as it has the address fd0")
        assert netns.outbound(Family.V6) == [15001]
        assert netns.check(plan()) is None


def test_without_prev_result_an_ipv4_pod_is_recognised(netns: PodNetns) -> None:
    netns.without(Family.V6)
    settled = netns.program(plan()).settled
    assert (settled.redirect.families, settled.bypassed) == ((Family.V4,), ())
    assert netns.outbound(Family.V4) == [15001]


def test_what_prev_result_omits_is_named(netns: PodNetns) -> None:
    """Its first family is IPv4, on which alone its sidecar listens: IPv6 of another plugin bypasses it, and is named."""
    settled = netns.program(plan("10.9.0.1")).settled
    assert {str(each) for each in settled.bypassed} == {"fd09::1", "fd08::1"}
    assert netns.outbound(Family.V4, Family.V6) == [15001, 80]


def test_nothing_bypasses_a_dual_stack_sidecar(netns: PodNetns) -> None:
    """Whatever comes after the ADD, as by a router's advertisement, by another plugin of the chain or by Multus."""
    netns.without(Family.V6)
    given = plan("10.9.0.1", dual_stack=True)
    settled = netns.program(given).settled
    assert settled.notes == ("IPv4 and IPv6, as ISTIO_DUAL_STACK is true",)
    netns.ip("address", "add", f"{LATE}/64", "dev", "eth0", "nodad")
    assert netns.outbound(Family.V4, Family.V6) == [15001, 15001]
    assert netns.check(given) is None


def test_both_families_are_redirected_before_any_address_is_known(netns: PodNetns) -> None:
    for family in Family:
        netns.without(family)
    settled = netns.program(plan()).settled
    assert settled.notes == ("IPv4 and IPv6, as its addresses are not known yet",)
    netns.ip("address", "add", f"{LATE}/64", "dev", "eth0", "nodad")
    assert netns.outbound(Family.V6) == [15001]


def test_a_link_local_address_is_redirected_with_the_rest_of_ipv6(netns: PodNetns) -> None:
    netns.program(plan("fd09::1"))
    port = netns.machines.report(Probe(Family.V6, 80, interface="eth0"), to=netns.machines.link_local())["port"]
    assert port == 15006


def test_check_detects_ipv6_added_since_the_add(netns: PodNetns) -> None:
    """Of a pod without prevResult: which family was first was not known, and may be this one."""
    netns.without(Family.V6)
    netns.program(plan())
    assert netns.check(plan()) is None
    netns.ip("address", "add", f"{LATE}/64", "dev", "eth0", "nodad")
    assert netns.check(plan())


def test_a_node_without_ipv6_rules_breaks_no_ipv4_pod(machines: Machines) -> None:
    netns = PodNetns(machines, Backend.NFT)
    netns.capability = Capability(Backend.NFT, {Feature.IPV6: "the kernel says so"})
    try:
        with pytest.raises(ApplyError, match="no ipv6 by nft: the kernel says so"):
            netns.program(plan("10.9.0.1", "fd09::1", dual_stack=True))
        with pytest.raises(ApplyError, match="no ipv6 by nft: the kernel says so"):
            netns.program(plan("10.9.0.1", ipv6=Ipv6.ALWAYS))
        netns.without(Family.V6)
        settled = netns.program(plan("10.9.0.1", dual_stack=True)).settled
        assert settled.redirect.families == (Family.V4,)
        assert "cannot be redirected on this node: the kernel says so" in settled.notes[0]
        assert netns.outbound(Family.V4) == [15001]
        assert netns.check(plan("10.9.0.1", dual_stack=True)) is None
    finally:
        machines.reset(Backend.NFT)


@pytest.mark.parametrize("off", [("lo",), ("all", "default", "lo", "eth0", "net1")], ids=["lo", "all"])
def test_ipv4_is_redirected_if_ipv6_is_off(netns: PodNetns, off: tuple[str, ...]) -> None:
    """Nothing bypasses the sidecar: what is redirected on its way out is dropped at `lo`, and what comes in gets in."""
    for name in ("lo",) if off == ("lo",) else ("all",):
        netns.machines.inside("pod", ["/usr/sbin/sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=1"])
    settled = netns.program(plan("fd09::1")).settled
    assert settled.ipv6_off
    named = "is 1" if len(off) == 1 else "are each 1"
    said = f"net.ipv6.conf.*.disable_ipv6 {named} in its netns for {', '.join(off)}"
    assert settled.notes[-1] == f"IPv6 does not pass the sidecar until it is on for lo: {said}"
    assert netns.check(plan("fd09::1")) is None
    assert netns.outbound(Family.V4) == [15001]
    if off == ("lo",):
        arrived = netns.machines.send(
            [Probe(Family.V6, 80), Probe(Family.V6, 80, APPLICATION, Place.PEER)], patience=0.5
        )
        assert [each.port for each in arrived] == [15006, None]

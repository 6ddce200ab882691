"""The rule count equals the number of rendered rules; a pod with too many is refused, and what is kept is bounded (F37)."""

from __future__ import annotations

import gc
import ipaddress
from dataclasses import replace
from weakref import ref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin.decision import decide
from plugin.keys import REROUTE, TRAFFIC
from plugin.parameters import MOST_RULES, Defaults
from plugin.pod import Pod
from plugin.redirect import Family, Mode, Redirect
from plugin.rulecount import LARGE, rule_count
from plugin.rules import MOST_KEPT, ruleset
from plugin.values import EVERYTHING, Address, InvalidValue, Port
from tests.plugin.conftest import manifest
from tests.redirect.strategies import pods

pytestmark = pytest.mark.pure

BOTH: tuple[Address, ...] = (ipaddress.ip_address("fd00::7"), ipaddress.ip_address("10.0.0.7"))
RANGES = [ipaddress.ip_network(text) for text in ("10.0.0.0/8", "127.0.0.0/8", "1.2.3.4", "::1", "fd00::/8", "::/0")]


def lists(*of: object) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(st.sampled_from(of), unique=True, max_size=len(of)).map(tuple)


PORTS = lists(*map(Port, (53, 80, 443, 8080)))
REDIRECTS = st.builds(
    Redirect,
    mode=st.sampled_from(Mode),
    families=st.sampled_from([(Family.V4,), (Family.V4, Family.V6)]),
    include_inbound_ports=st.just(EVERYTHING) | PORTS,
    exclude_inbound_ports=PORTS,
    include_outbound=st.just(EVERYTHING) | lists(*RANGES),
    exclude_outbound=lists(*RANGES),
    include_outbound_ports=PORTS,
    exclude_outbound_ports=PORTS,
    exclude_interfaces=lists("net1", "net2"),
    reroute_interfaces=lists("tap1", "tap2"),
    dns_capture=st.booleans(),
    drop_invalid=st.booleans(),
)


def made(redirect: Redirect) -> int:
    return sum(len(chain.rules) for table in ruleset(redirect).tables for chain in table.chains)


@given(REDIRECTS)
def test_the_counted_rules_equal_the_rendered_rules(redirect: Redirect) -> None:
    assert rule_count(redirect) == made(redirect)


@given(pods())
def test_the_rules_counted_for_a_pod_equal_the_rendered_rules(pod: Pod) -> None:
    verdict = decide(pod, BOTH, Defaults())
    if isinstance(verdict, Redirect):
        assert rule_count(verdict) == made(verdict)


PORTS_1024 = ",".join(str(number + 1) for number in range(1024))
MANY = {
    TRAFFIC + "includeOutboundIPRanges": ",".join(f"10.{n // 256}.{n % 256}.0/24" for n in range(1024)),
    TRAFFIC + "includeInboundPorts": PORTS_1024,
    TRAFFIC + "includeOutboundPorts": PORTS_1024,
    TRAFFIC + "excludeOutboundPorts": PORTS_1024,
    REROUTE: ",".join(f"tap{n}" for n in range(16)),
    "sidecar.istio.io/interceptionMode": "TPROXY",
}


def test_a_pod_that_asks_for_too_many_rules_is_refused_with_their_number() -> None:
    with pytest.raises(InvalidValue, match=rf"traffic.*: saw '29822 rules .*at most {MOST_RULES}: .* 1024 entries"):
        decide(Pod.from_manifest(manifest(**MANY)), BOTH, Defaults())


def test_the_rule_limit_is_exact() -> None:
    key = TRAFFIC + "includeOutboundPorts"

    def verdict(ports: int, ranges: int) -> Redirect:
        given = {
            key: ",".join(str(number + 1) for number in range(ports)),
            TRAFFIC + "excludeOutboundIPRanges": ",".join(f"10.0.{n // 256}.{n % 256}" for n in range(ranges)),
        }
        found = decide(Pod.from_manifest(manifest(**given)), BOTH[1:], Defaults())
        assert isinstance(found, Redirect)
        return found

    fixed = rule_count(verdict(0, 0))
    ranges = MOST_RULES - fixed - 1024
    assert made(verdict(1024, ranges)) == MOST_RULES
    with pytest.raises(InvalidValue, match=f"{key}: saw '{MOST_RULES + 1} rules"):
        verdict(1024, ranges + 1)


def test_pods_with_rulesets_of_their_own_displace_none_that_many_pods_share() -> None:
    shared = [Redirect(), Redirect(families=(Family.V4, Family.V6))]
    for _ in range(100):
        before = [*map(ruleset, shared)]
    own = (replace(Redirect(), exclude_inbound_ports=(Port(number),)) for number in range(1, 1000))
    kept = [ref(ruleset(each)) for each in own]
    assert all(ruleset(each) is rules for each, rules in zip(shared, before, strict=True))
    gc.collect()
    assert sum(each() is not None for each in kept) <= MOST_KEPT


def test_a_ruleset_that_becomes_usual_is_kept_in_the_end() -> None:
    for _ in range(3):
        for number in range(2000, 2000 + MOST_KEPT):
            ruleset(replace(Redirect(), exclude_inbound_ports=(Port(number),)))
    usual = replace(Redirect(), exclude_inbound_ports=(Port(3000),))
    assert any(ruleset(usual) is ruleset(usual) for _ in range(200))


def test_a_large_ruleset_is_not_kept() -> None:
    large = replace(Redirect(), exclude_inbound_ports=tuple(map(Port, range(1, LARGE))))
    assert rule_count(large) > LARGE
    assert ruleset(large) is not ruleset(large)

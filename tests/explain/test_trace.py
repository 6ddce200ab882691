"""The walk of a packet ends where the packets of tests/redirect really arrived, and shows each rule that it meets."""

from __future__ import annotations

import pytest

from installer.explain.trace import Outcome, walk
from plugin.redirect import Family, Mode, Redirect
from plugin.rules import ruleset
from plugin.ruleset import Jump, Kind, RedirectTo, Return, Rule, State
from tests.explain.packets import packet
from tests.redirect.probes import APPLICATION, PROXY, PROXY_AS_ROOT, Place, Probe
from tests.redirect.rows import ROWS
from tests.redirect.test_packets import expected

pytestmark = pytest.mark.pure


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
@pytest.mark.parametrize("name", ROWS)
def test_trace_ends_where_real_packets_arrive(name: str, mode: Mode) -> None:
    rules = ruleset(ROWS[name].redirect(mode))
    wrong = {
        probe: way.port
        for probe, fate in expected(name, mode).items()
        if (way := walk(rules, packet(probe))).port != fate.port
    }
    assert wrong == {}


def test_trace_lists_the_rules_in_the_packets_order() -> None:
    rules = ruleset(Redirect())
    way = walk(rules, packet(Probe(Family.V4, 443, APPLICATION, Place.PEER)))
    assert (way.outcome, way.port) == (Outcome.REDIRECTED, 15001)
    fitting = [step for step in way.steps if step.fits]
    assert [step.chain for step in fitting] == ["OUTPUT", "ISTIO_OUTPUT", "ISTIO_REDIRECT"]
    assert [type(step.rule.target) for step in fitting] == [Jump, Jump, RedirectTo]
    assert {step.kind for step in way.steps} == {Kind.NAT}
    assert way.steps[1].rule.port == 15020
    assert not way.steps[1].fits


def test_under_tproxy_a_sidecars_call_to_its_own_pod_is_inbound() -> None:
    way = walk(ruleset(Redirect(mode=Mode.TPROXY)), packet(Probe(Family.V4, 80, PROXY_AS_ROOT, Place.POD)))
    assert (way.outcome, way.port) == (Outcome.TPROXIED, 15006)
    assert [step.chain for step in way.steps if step.fits][-1] == "ISTIO_TPROXY"
    assert way.steps[-1].kind is Kind.MANGLE


def test_redirected_packet_returns_through_lo_and_skips_nat() -> None:
    way = walk(ruleset(Redirect(mode=Mode.TPROXY)), packet(Probe(Family.V4, 80, PROXY, Place.POD)))
    assert (way.outcome, way.port) == (Outcome.REDIRECTED, 15006)
    *_, not_to_loopback, left_alone, not_marked = way.steps
    assert (not_to_loopback.chain, not_to_loopback.fits) == ("ISTIO_TPROXY", False)
    assert left_alone.rule == Rule(in_interface="lo", target=Return())
    assert (left_alone.fits, not_marked.fits) == (True, False)


def test_the_first_packet_of_a_connection_is_of_no_known_one() -> None:
    way = walk(ruleset(Redirect(mode=Mode.TPROXY, drop_invalid=True)), packet(Probe(Family.V4, 80)))
    assert way.outcome is Outcome.TPROXIED
    assert {step.rule.state for step in way.steps} >= {State.INVALID, State.KNOWN, State.REPLY}
    assert not any(step.fits for step in way.steps if step.rule.state)

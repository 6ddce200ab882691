"""Explanations and walks as text: a table for people, JSON and YAML for programs, the rules in the backend's syntax."""

from __future__ import annotations

import ipaddress
import json
from enum import Enum
from typing import TYPE_CHECKING, Any

import yaml

from installer.explain.effective_settings import DEFAULT
from installer.explain.trace import Outcome
from installer.terminal.printable import printable
from installer.terminal.tables import Colour
from plugin import iptables, nft
from plugin.backend import Backend
from plugin.redirect import Family
from plugin.rules import ruleset

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from installer.explain.explain import Explanation
    from installer.explain.trace import Step, Walk
    from installer.terminal.tables import Style
    from plugin.parameters import Parameter
    from plugin.redirect import Redirect
    from plugin.ruleset import Rule

DEPENDS = "depends on the pod's addresses"
YAML_WIDTH = 100  # columns
_OF_DECISION = {"redirect": Colour.GREEN, "error": Colour.RED}
IPTABLES = {Family.V4: "iptables", Family.V6: "ip6tables"}
ENDS = {
    Outcome.REDIRECTED: "arrives at port {port} of the sidecar, which can ask for the destination (SO_ORIGINAL_DST)",
    Outcome.TPROXIED: "arrives at port {port} of the sidecar, with its own addresses",
    Outcome.UNTOUCHED: "passes unchanged: not redirected",
    Outcome.DROPPED: "is dropped",
}


def render_table(explanations: Sequence[Explanation], style: Style) -> str:
    """Write them for people."""
    return "\n".join("".join(f"{line}\n" for line in _lines(each, style)) for each in explanations)


def as_json(explanations: Sequence[Explanation]) -> str:
    """Write them as a JSON list."""
    return json.dumps([plain(each) for each in explanations], indent=2) + "\n"


def as_yaml(explanations: Sequence[Explanation]) -> str:
    """Write them as a YAML list."""
    text: str = yaml.safe_dump([plain(each) for each in explanations], sort_keys=False, width=YAML_WIDTH)
    return text


def render_rules(explanations: Sequence[Explanation], backend: Backend) -> str:
    """Write the rules of the redirected pods, as passed to the backend."""
    blocks = []
    for each in explanations:
        # A name or reason with a line break must stay a comment, not become a rule.
        title = printable(
            f"# {each.namespace}/{each.name}: {each.decision}{'' if each.redirect else f': {each.reason}'}"
        )
        by = "".join(f"# {key}  {printable(value)}\n" for key, value in _set(each))
        depends = f"# IPv6 {DEPENDS} (--pod-ip): {each.by_addresses}\n" if each.by_addresses else ""
        blocks.append(f"{depends}{title}\n{by}{_rules(each.redirect, backend) if each.redirect else ''}")
    return "\n".join(blocks)


def plain(explanation: Explanation) -> dict[str, Any]:
    """Convert an explanation to plain JSON; the keys are stable across releases."""
    return {
        "namespace": explanation.namespace,
        "name": explanation.name,
        "kind": explanation.kind,
        "path": explanation.path,
        "decision": explanation.decision,
        "row": explanation.row,
        "reason": explanation.reason,
        "parameters": [
            {"name": each.field, "key": each.key, "value": _plain(each.value), "origin": _origin(explanation, each)}
            for each in explanation.parameters
        ],
        "settings": [{"key": each.key, "value": _plain(each.value), "by": each.by} for each in explanation.settings],
        "warnings": list(explanation.warnings),
    }


def render_settings(explanation: Explanation, style: Style) -> str:
    """Write, for people, the settings that are not defaults, with their origins."""
    return "".join(f"{line}\n" for line in _rows([*_set(explanation)], style))


def render_walk(walk: Walk, backend: Backend, family: Family) -> str:
    """Write the walk of a packet: each rule that it traverses, `>` before those that match, and where it arrives."""
    lines = [_step(step, backend, family) for step in walk.steps] or ["  no rule applies to it"]
    return "\n".join([*lines, f"The packet {ENDS[walk.outcome].format(port=walk.port)}.", ""])


def _lines(explanation: Explanation, style: Style) -> Iterator[str]:
    row = f" by row {explanation.row}" if explanation.decision == "pass" else ""
    named = f"{explanation.namespace}/{explanation.name}{explanation.maker}"
    title = f"{named}: {explanation.decision.upper()}{row}: {explanation.reason}"
    yield from style.wrapped(printable(title), "", "  ", _OF_DECISION.get(explanation.decision, Colour.PLAIN))
    rows = [(each.key, _value(explanation, each)) for each in explanation.parameters]
    yield from _rows([*rows, *_set(explanation)], style)
    for warning in explanation.warnings:
        yield from style.wrapped(printable(warning), "  ! ", "    ", Colour.YELLOW)


def _value(explanation: Explanation, parameter: Parameter) -> str:
    origin = _origin(explanation, parameter)
    if origin == DEPENDS:
        return f"{origin} (--pod-ip): {explanation.by_addresses}"
    return f"{_format(parameter.value)} ({origin})"


def _origin(explanation: Explanation, parameter: Parameter) -> str:
    depends = parameter.field == "families" and explanation.by_addresses
    return DEPENDS if depends else parameter.origin.value


def _set(explanation: Explanation) -> Iterator[tuple[str, str]]:
    """Write the settings that are not defaults."""
    for each in explanation.settings:
        if each.by != DEFAULT:
            yield each.key, f"{_format(each.value)} (by {each.by})"


def _rows(rows: Sequence[tuple[str, str]], style: Style) -> Iterator[str]:
    width = max((len(key) for key, _ in rows), default=0)
    for key, value in rows:
        yield from style.wrapped(printable(value), f"  {key:{width}}  ", " " * (width + 4))


def _format(value: object) -> str:
    converted = _plain(value)
    if isinstance(converted, bool):
        return "true" if converted else "false"
    return ", ".join(map(str, converted)) or "none" if isinstance(converted, list) else str(converted)


def _plain(value: object) -> Any:
    match value:
        case Family():
            return f"IPv{value.version}"
        case Enum():
            return value.value
        case tuple():
            return [_plain(each) for each in value]
        case ipaddress.IPv4Network() | ipaddress.IPv6Network():
            return str(value)
    return value


def _rules(redirect: Redirect, backend: Backend) -> str:
    rules = ruleset(redirect)
    routes = "".join(
        f"# ip {'-6 ' if each.family is Family.V6 else ''}rule add fwmark {each.mark:#x} lookup {each.table}\n"
        f"# ip {'-6 ' if each.family is Family.V6 else ''}route add local default dev lo table {each.table}\n"
        for each in rules.routes
    )
    if backend is Backend.NFT:
        return routes + nft.listing(rules)
    texts = (
        f"# {IPTABLES[family]}-restore --noflush\n{iptables.transaction(rules, family, '')}"
        for family in redirect.families
    )
    return routes + "".join(texts)


def _step(step: Step, backend: Backend, family: Family) -> str:
    text = _rule(step.rule, backend, family, built_in=not step.chain.startswith("ISTIO_"))
    return f"{'>' if step.fits else ' '} {step.kind.value:6} {step.chain:17} {text}"


def _rule(rule: Rule, backend: Backend, family: Family, *, built_in: bool) -> str:
    if backend is Backend.NFT:
        return "; ".join(nft.lines(rule, family))
    return iptables.arguments(rule, family, built_in=built_in)

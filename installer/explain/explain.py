"""Explains how a pod is treated: the decision, the row that makes it, each parameter with its origin, warnings. Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from installer.explain.effective_settings import DEFAULT
from installer.pods import warnings
from plugin.decision import verdict
from plugin.families import in_order
from plugin.keys import STATUS
from plugin.parameters import parameters
from plugin.prefilter import NEVER_INJECTED, Pass
from plugin.redirect import Redirect
from plugin.values import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from installer.explain.effective_settings import EffectiveSettings, Setting
    from installer.pods.manifest import Found
    from plugin.decision import Verdict
    from plugin.parameters import Parameter
    from plugin.pod import Pod
    from plugin.redirect import Family
    from plugin.values import Address

_V4, _V6 = ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("2001:db8::1")
# The cases on which the families may depend: any address of a family represents all.
ADDRESSES: Mapping[str, tuple[Address, ...]] = {
    "it has IPv4 alone": (_V4,),
    "IPv6 comes second": (_V4, _V6),
    "IPv6 comes first": (_V6, _V4),
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """How the agent treats one pod.

    Attributes:
        name: the pod's; of a template, the name of its object.
        kind: the kind of the object that contains the pod.
        path: the path of the template in that object; empty for a Pod.
        maker: the kind, and the path if that object has several templates, in brackets; empty for a Pod.
        decision: `redirect`, `pass`, or `error` if its ADD fails.
        row: the short name of the decision table's row.
        reason: the same, for people.
        redirect: how it is redirected, if it is.
        parameters: each field of `redirect`, with its origin.
        warnings: surprising behaviour, and what to do about it.
        settings: the settings that decide, each with its origin.
        by_addresses: how the families depend on unknown addresses of the pod; empty if they do not.
    """

    namespace: str
    name: str
    kind: str
    decision: str
    row: str
    reason: str
    redirect: Redirect | None = None
    parameters: tuple[Parameter, ...] = ()
    warnings: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = ()
    path: str = ""
    maker: str = ""
    by_addresses: str = ""


def explain(found: Found, addresses: tuple[Address, ...], effective: EffectiveSettings) -> Explanation:
    """Explain a pod.

    Without `addresses`, those of its status count.
    """
    explanation, written = _explain(found, addresses, effective), found.written
    place = f"{written.kind}, {written.path}" if written.is_one_of_several else written.kind
    return replace(
        explanation,
        settings=effective.deciding,
        warnings=(*effective.warnings, *explanation.warnings),
        path=written.path,
        maker=f" ({place})" if written.is_template else "",
    )


def _explain(found: Found, addresses: tuple[Address, ...], effective: EffectiveSettings) -> Explanation:
    pod = found.pod
    addresses = addresses or status_addresses(found.written.manifest)
    by_addresses = "" if addresses else _by_addresses(pod, effective)
    addresses = _as_in_add(addresses, effective)
    named = (pod.namespace, pod.name, found.written.kind)
    reached = _verdict(pod, addresses, effective)
    if isinstance(reached, InvalidValue):
        return Explanation(*named, "error", "invalid", str(reached))
    if isinstance(reached, Pass):
        notes = [*warnings.find_pass_warnings(pod, found.written.manifest, reached)]
        if reached is NEVER_INJECTED and _is_redirected_once_injected(pod, effective):
            notes.append(warnings.describe_uninjected(pod, found.written))
        return Explanation(*named, "pass", reached.row, reached.reason, warnings=tuple(notes))
    return Explanation(
        *named,
        "redirect",
        "redirect",
        "it is a meshed pod",
        reached,
        tuple(parameters(pod, pod.proxy, addresses, effective.settings.policy.defaults)) if pod.proxy else (),
        (
            *warnings.find_runtime_warnings(pod, found.handler),
            *warnings.find_redirect_warnings(pod, reached, addresses, knows_families=not by_addresses),
            *warnings.find_manifest_warnings(found.written.manifest, reached),
        ),
        by_addresses=by_addresses,
    )


def _as_in_add(addresses: tuple[Address, ...], effective: EffectiveSettings) -> tuple[Address, ...]:
    """Sort a pod's addresses as its ADD does: without chaining, no prevResult defines the order of families."""
    return addresses if effective.settings.chained else in_order((), addresses) or ()


def _is_redirected_once_injected(pod: Pod, effective: EffectiveSettings) -> bool:
    """Return whether only the injector's annotation is missing."""
    injected = replace(pod, annotations={**pod.annotations, STATUS: ""})
    return not isinstance(verdict(injected, (), effective.settings.policy), Pass)


def _by_addresses(pod: Pod, effective: EffectiveSettings) -> str:
    """Describe how the redirected families depend on the addresses that the pod gets; empty if they do not."""
    found: dict[tuple[Family, ...], list[str]] = {}
    for which, addresses in ADDRESSES.items():
        reached = verdict(pod, _as_in_add(addresses, effective), effective.settings.policy)
        if isinstance(reached, Redirect):
            found.setdefault(reached.families, []).append(which)
    if len(found) < 2:
        return ""
    cases = (
        f"{', '.join(f'IPv{each.version}' for each in families)} if {' or '.join(of)}" for families, of in found.items()
    )
    return "; ".join(cases)


def _verdict(pod: Pod, addresses: tuple[Address, ...], effective: EffectiveSettings) -> Verdict:
    """Make the verdict; if the settings exclude the namespace, add their origin."""
    if effective.out:
        return Pass(warnings.NOT_INSTALLED, f"the plugin is not installed, so nothing is redirected: {effective.out}")
    reached, by = verdict(pod, addresses, effective.settings.policy), effective.by.get("exclude_namespaces", DEFAULT)
    if isinstance(reached, Pass) and reached.is_excluded and by != DEFAULT:
        return reached._replace(reason=f"{reached.reason} by {by}")
    return reached


def status_addresses(manifest: Mapping[str, Any]) -> tuple[Address, ...]:
    """Read a pod's addresses from its status; none if it has none yet."""
    status = manifest.get("status")
    listed = status.get("podIPs") if isinstance(status, dict) else None
    found = []
    for each in listed if isinstance(listed, list) else ():
        try:
            found.append(ipaddress.ip_address(each["ip"]))
        except (ValueError, LookupError, TypeError):
            continue  # the API server never writes such an address, but a file may contain one
    return tuple(found)

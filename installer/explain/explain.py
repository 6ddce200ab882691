"""Why a pod is treated as it is: the decision, the row that made it, each parameter and its origin, and warnings. Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from installer.explain import warnings
from installer.explain.inforce import DEFAULT
from plugin.decision import decide
from plugin.outside import Pass, outside_mesh
from plugin.parameters import parameters
from plugin.values import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from installer.explain.inforce import InForce, Setting
    from installer.manifestfile import Found
    from plugin.parameters import Parameter
    from plugin.pod import Pod
    from plugin.redirect import Redirect
    from plugin.values import Address


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the agent makes of one pod.

    Attributes:
        namespace: the pod's.
        name: the pod's; of a template, that of what makes its pods.
        kind: of the object that the pod was in.
        decision: `redirect`, `pass`, or `error` if its ADD fails.
        row: the short name of the decision table's row.
        reason: the same for people.
        redirect: how it is redirected, if it is.
        parameters: each field of `redirect`, with its origin.
        warnings: what is worth knowing, and what to do about it.
        settings: those by which the agent decides, each with its origin.
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


def explain(found: Found, addresses: tuple[Address, ...], in_force: InForce) -> Explanation:
    """Explain a pod.

    Args:
        found: the pod, as it was written and as the decision needs it.
        addresses: its addresses, in order; those of its status if none are given.
        in_force: the settings by which the agent decides.
    """
    made = _explained(found, addresses, in_force)
    return replace(made, settings=in_force.deciding, warnings=(*in_force.warnings, *made.warnings))


def _explained(found: Found, addresses: tuple[Address, ...], in_force: InForce) -> Explanation:
    pod = found.pod
    addresses = addresses or status_addresses(found.written.manifest)
    named = (pod.namespace, pod.name, found.written.kind)
    try:
        verdict = _outside(pod, in_force) or decide(pod, addresses, in_force.defaults)
    except InvalidValue as error:
        return Explanation(*named, "error", "invalid", str(error))
    if isinstance(verdict, Pass):
        said = tuple(warnings.of_pass(pod, found.written.manifest, verdict))
        return Explanation(*named, "pass", verdict.row, verdict.reason, warnings=said)
    return Explanation(
        *named,
        "redirect",
        "redirect",
        "it is a meshed pod",
        verdict,
        tuple(parameters(pod, pod.proxy, addresses, in_force.defaults)) if pod.proxy else (),
        (
            *warnings.of_runtime(pod, found.handler),
            *warnings.of_redirect(pod, verdict, addresses),
            *warnings.of_manifest(found.written.manifest, verdict),
        ),
    )


def _outside(pod: Pod, in_force: InForce) -> Pass | None:
    """Say why the settings leave it alone, if they do, and whose they are."""
    if in_force.out:
        return Pass(warnings.NOT_INSTALLED, f"the plugin is out of the nodes, so nothing is redirected: {in_force.out}")
    passed = outside_mesh(pod.namespace, pod.name, in_force.settings.exclude_namespaces, None)
    by = in_force.by.get("exclude_namespaces", DEFAULT)
    return passed and (passed if by == DEFAULT else passed._replace(reason=f"{passed.reason} by {by}"))


def status_addresses(manifest: Mapping[str, Any]) -> tuple[Address, ...]:
    """Read a pod's addresses from its status; none if it has none yet."""
    status = manifest.get("status")
    listed = status.get("podIPs") if isinstance(status, dict) else None
    found = []
    for each in listed if isinstance(listed, list) else ():
        try:
            found.append(ipaddress.ip_address(each["ip"]))
        except (ValueError, LookupError, TypeError):
            continue  # the API server writes no such thing; a file may
    return tuple(found)

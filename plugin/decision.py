"""The verdict on a pod: the rows of the decision table in order; the first that applies decides."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from plugin.keys import DISABLE_ENVOY, INIT, INJECT, INTERCEPTION_MODE, PROXY, of_the_mesh
from plugin.parameters import Defaults, redirect
from plugin.prefilter import NEVER_INJECTED, Pass, excluded
from plugin.values import InvalidValue, maybe_boolean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plugin.pod import Container, Pod
    from plugin.redirect import Redirect
    from plugin.values import Address

Verdict: TypeAlias = "Redirect | Pass | InvalidValue"
"""How a pod is redirected, why it is left alone, or why its annotations are invalid, which fails its ADD."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The part of a node's settings that concerns pods.

    Attributes:
        excluded: the namespaces whose pods are left alone.
        defaults: the parameters for pods that do not set them.
    """

    excluded: tuple[str, ...] = ()
    defaults: Defaults = field(default_factory=Defaults)


def verdict(pod: Pod, addresses: tuple[Address, ...] | None, policy: Policy) -> Verdict:
    """Reach the verdict on a pod.

    Args:
        pod: the pod.
        addresses: its addresses, in prevResult's order; None: unknown so far.
        policy: this node's policy.
    """
    if pod.namespace in policy.excluded:
        return excluded(pod.namespace)
    try:
        return decide(pod, addresses, policy.defaults)
    except InvalidValue as error:
        return error.with_traceback(None)  # otherwise the verdict would keep the pod's texts in memory


def decide(pod: Pod, addresses: tuple[Address, ...] | None, defaults: Defaults) -> Redirect | Pass:
    """Evaluate the rows that need the pod itself; arguments as for `verdict`.

    Raises:
        InvalidValue: if a parameter of a redirected pod is invalid.
    """
    proxy = pod.proxy
    inject = pod.labels.get(INJECT, pod.annotations.get(INJECT))  # the label wins
    if maybe_boolean(inject) is False:
        return Pass("opted-out", f"{INJECT} is {inject}")
    if not pod.is_injected:
        return NEVER_INJECTED
    if any(each.name == INIT for each in pod.init_containers):
        return Pass("istio-init", f"it has the init container {INIT}, which programs the pod's netns itself")
    if proxy is None:
        return Pass("no-proxy", f"it has no container {PROXY}")
    if pod.at_once == 1:
        return Pass("proxy-alone", f"{PROXY} is its only container")
    if reason := _is_no_sidecar(proxy):
        return Pass("no-sidecar", reason)
    if pod.annotations.get(INTERCEPTION_MODE) == "NONE":
        return Pass("mode-none", f"{INTERCEPTION_MODE} is NONE")
    return redirect(pod, proxy, addresses, defaults)


def weigh(
    pod: Pod, handed_over: Mapping[str, str] | None, addresses: tuple[Address, ...] | None, policy: Policy
) -> tuple[Verdict, str]:
    """Reach the verdict on a pod from two descriptions that may differ: a pass needs both to agree.

    The API server's pod decides how it is redirected, as for `explain`, repair and the counts: it reflects edits, whereas the
    runtime's annotations stay those of the sandbox. If it says pass, the runtime's annotations decide.

    Args:
        pod: as the API server has it, by its uid.
        handed_over: its annotations as the runtime passes them; None if it does not.
        addresses: as for `verdict`.
        policy: as for `verdict`.

    Returns:
        The verdict, and how the two descriptions contradict each other; empty if they do not.
    """
    found = verdict(pod, addresses, policy)
    if handed_over is None or not (keys := differing(pod, handed_over)):
        return found, ""
    which = "the API server's"
    if isinstance(found, Pass):
        other = verdict(replace(pod, annotations=of_the_mesh(handed_over)), addresses, policy)
        if isinstance(other, Pass):
            return found, ""
        found, which = other, "the runtime's"
    said = f"the runtime started the pod with other annotations than the API server has: {', '.join(keys)} differ"
    return found, f"{said}. The pod is redirected as {which} say"


def differing(pod: Pod, handed_over: Mapping[str, str]) -> list[str]:
    """List the relevant annotations that differ between a pod and the runtime's data."""
    other = of_the_mesh(handed_over)
    return sorted(key for key in pod.annotations.keys() | other if pod.annotations.get(key) != other.get(key))


def _is_no_sidecar(proxy: Container) -> str | None:
    if maybe_boolean(proxy.env.get(DISABLE_ENVOY)):
        return f"{PROXY} runs without Envoy ({DISABLE_ENVOY})"
    if len(proxy.args) >= 2 and proxy.args[0] == "proxy" and proxy.args[1] != "sidecar":
        return f"{PROXY} is a {proxy.args[1]!r:.40}, not a sidecar"
    return None

"""Is a pod redirected? The rows in order; the first that applies decides."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from plugin.keys import DISABLE_ENVOY, INIT, INJECT, INTERCEPTION_MODE, PROXY, of_the_mesh
from plugin.parameters import Defaults, redirect
from plugin.prefilter import NEVER_INJECTED, Pass
from plugin.values import maybe_boolean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plugin.pod import Container, Pod
    from plugin.redirect import Redirect
    from plugin.values import Address


def decide(pod: Pod, addresses: tuple[Address, ...] | None, defaults: Defaults) -> Redirect | Pass:
    """Decide about a pod that `plugin.prefilter` does not settle.

    Args:
        pod: the pod.
        addresses: its addresses, in prevResult's order; None: none can be known yet.
        defaults: for what it does not say.

    Returns:
        How to redirect it, or why not to.

    Raises:
        InvalidValue: if a parameter of a pod to redirect does not validate: its ADD fails.
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
    pod: Pod, handed_over: Mapping[str, str] | None, addresses: tuple[Address, ...] | None, defaults: Defaults
) -> tuple[Redirect | Pass, str]:
    """Decide about a pod of which the runtime may say something else: for the mesh, as a pass needs both to agree.

    The API server's pod says how it is redirected, as `explain`, repair and the counts go by it as well; it follows an
    edit, where the runtime's annotations stay those of the sandbox. Where it says pass, the runtime's annotations count.

    Args:
        pod: as the API server has it, by its uid.
        handed_over: its annotations as the runtime hands them over; None if it does not.
        addresses: as `decide` takes them.
        defaults: the same.

    Returns:
        The decision, and what is contradictory in the evidence for it; empty if nothing is.

    Raises:
        InvalidValue: as `decide` does.
    """
    verdict = decide(pod, addresses, defaults)
    if handed_over is None or not (keys := differing(pod, handed_over)):
        return verdict, ""
    which = "the API server's"
    if isinstance(verdict, Pass):
        other = decide(replace(pod, annotations=of_the_mesh(handed_over)), addresses, defaults)
        if isinstance(other, Pass):
            return verdict, ""
        verdict, which = other, "the runtime's"
    said = f"the runtime started the pod with other annotations than the API server has: {', '.join(keys)} differ"
    return verdict, f"{said}. The pod is redirected as {which} say"


def differing(pod: Pod, handed_over: Mapping[str, str]) -> list[str]:
    """Name the annotations in which a pod differs from what the runtime hands over, of those that are read."""
    other = of_the_mesh(handed_over)
    return sorted(key for key in pod.annotations.keys() | other if pod.annotations.get(key) != other.get(key))


def _is_no_sidecar(proxy: Container) -> str | None:
    if maybe_boolean(proxy.env.get(DISABLE_ENVOY)):
        return f"{PROXY} runs without Envoy ({DISABLE_ENVOY})"
    if len(proxy.args) >= 2 and proxy.args[0] == "proxy" and proxy.args[1] != "sidecar":
        return f"{PROXY} is a {proxy.args[1]!r:.40}, not a sidecar"
    return None

"""Is a pod redirected? The rows in order; the first that applies decides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plugin.keys import DISABLE_ENVOY, INIT, INJECT, INTERCEPTION_MODE, PROXY
from plugin.outside import NEVER_INJECTED, Pass
from plugin.parameters import Defaults, redirect
from plugin.values import maybe_boolean

if TYPE_CHECKING:
    from plugin.pod import Container, Pod
    from plugin.redirect import Redirect
    from plugin.values import Address


def decide(pod: Pod, addresses: tuple[Address, ...], defaults: Defaults) -> Redirect | Pass:
    """Decide about a pod that `plugin.outside` does not settle.

    Args:
        pod: the pod.
        addresses: its addresses, in prevResult's order.
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


def _is_no_sidecar(proxy: Container) -> str | None:
    if maybe_boolean(proxy.env.get(DISABLE_ENVOY)):
        return f"{PROXY} runs without Envoy ({DISABLE_ENVOY})"
    if len(proxy.args) >= 2 and proxy.args[0] == "proxy" and proxy.args[1] != "sidecar":
        return f"{PROXY} is a {proxy.args[1]!r:.40}, not a sidecar"
    return None

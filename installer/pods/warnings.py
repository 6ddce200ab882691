"""Warnings about a pod that a platform engineer wants before an incident, each with a remedy. Pure."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from installer.documents.objects import mapping
from installer.pods.pod_specs import annotations_of
from installer.pods.runtime_class import own_network_stack, without_effect
from plugin.keys import INIT, PROXY, REROUTE, STATUS, TRAFFIC, TRAFFIC_NAMES
from plugin.redirect import SIDECAR, Family, Mode
from plugin.rules import NEVER_INBOUND
from plugin.values import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from installer.pods.pod_specs import PodManifest
    from plugin.pod import Container, Pod
    from plugin.prefilter import Pass
    from plugin.redirect import Redirect
    from plugin.values import Address

NOT_INSTALLED = "not-installed"  # the row of pods in a cluster whose nodes have no plugin
VALIDATION = "istio-validation"
OF_THE_MESH = (INIT, VALIDATION, "enable-core-dump", PROXY)  # they need no network
# What an injector writes on each pod from the mesh's settings, not at its user's request.
INJECTORS = tuple(TRAFFIC + name for name in TRAFFIC_NAMES if not name.endswith("Interfaces"))
AMBIENT_REDIRECTION, DATAPLANE_MODE = "ambient.istio.io/redirection", "istio.io/dataplane-mode"


def find_pass_warnings(pod: Pod, manifest: Mapping[str, Any], passed: Pass) -> Iterator[str]:
    """List the warnings about a pod that is left alone."""
    if passed.is_excluded and pod.is_injected:
        yield describe_excluded(pod)
    if passed.row == NOT_INSTALLED and pod.is_injected:
        yield (
            "the pod was injected, and there is no plugin: its sidecar gets no traffic, unless the pod started before the "
            "plugin was removed, and kept its rules. Set enabled: true, or switch injection off"
        )
    if passed.row == "istio-init":
        yield (
            "istio-init needs NET_ADMIN in the pod, which this agent makes unnecessary: install the injector with "
            "cni.enabled, and inject the pod again"
        )
    if passed.row != "istio-init" and (
        ignored := [*_ignored(manifest, INJECTORS if passed.row == "mode-none" else ())]
    ):
        yield f"{_listed(ignored)} {'has' if len(ignored) == 1 else 'have'} no effect, as the pod is left alone"
    if not pod.is_injected and (asked := _asks_for_ambient(manifest)):
        yield (
            f"{asked} asks for ambient mode, which this agent does not serve: the pod's traffic does not reach ztunnel. "
            "Inject a sidecar instead, or run Istio's own agent on these nodes"
        )


def _ignored(manifest: Mapping[str, Any], expected: Collection[str]) -> Iterator[str]:
    """Name the settings of a pod that is left alone, except those that an injector writes even there."""
    return (
        key for key in annotations_of(manifest) if (key.startswith(TRAFFIC) or key == REROUTE) and key not in expected
    )


def describe_uninjected(pod: Pod, written: PodManifest) -> str:
    """Describe the effect of a sidecar without the injector's annotation, and the remedy."""
    present = [name for name in (PROXY, VALIDATION) if any(each.name == name for each in _all(pod))]
    where = f"{written.path}.metadata.annotations".removeprefix(".")
    if _is_placeholder(written.manifest):
        return (
            f"{PROXY} is a placeholder, which the injector fills in when the pod is created. Explain that pod, or the "
            "output of `istioctl kube-inject`"
        )
    follows = (
        f"{VALIDATION} finds no redirect and fails, and the pod does not start"
        if VALIDATION in present
        else f"{PROXY} gets no traffic, if it is Istio's sidecar"
    )
    if written.injected_at:
        remedy = (
            f"The annotation is in {written.injected_at}, which is not the pod's own: `istioctl kube-inject` writes that of a "
            f"CronJob there. Move the annotations of the injector to {where}, or leave injection to the webhook"
        )
    else:
        remedy = f"Inject the pod again, or add the annotation to {where}"
    return (
        f"{' and '.join(present)} {'is' if len(present) == 1 else 'are'} there without the annotation {STATUS}: the pod counts "
        f"as never injected and is not redirected. {follows}. {remedy}"
    )


def _all(pod: Pod) -> Iterable[Container]:
    return (*pod.containers, *pod.init_containers)


def _is_placeholder(manifest: Mapping[str, Any]) -> bool:
    """Whether the injector has to fill in the sidecar's image, as in a pod that customises the sidecar."""
    spec = mapping(manifest.get("spec"))
    listed = (spec.get(kind) for kind in ("containers", "initContainers"))
    proxies = (each for found in listed for each in found or () if each.get("name") == PROXY)
    return any(each.get("image", "auto") in ("", "auto") and not each.get("args") for each in proxies)


def _asks_for_ambient(manifest: Mapping[str, Any]) -> str:
    labels = mapping(mapping(manifest.get("metadata")).get("labels"))
    asks = annotations_of(manifest).get(AMBIENT_REDIRECTION) == "enabled", labels.get(DATAPLANE_MODE) == "ambient"
    return next((key for key, is_so in zip((AMBIENT_REDIRECTION, DATAPLANE_MODE), asks, strict=True) if is_so), "")


def describe_excluded(pod: Pod) -> str:
    """Describe the problem of a pod that was injected in an excluded namespace (F22)."""
    return (
        f"the pod was injected, but its namespace {pod.namespace} is excluded: its sidecar gets no traffic. Take the "
        "namespace out of excludeNamespaces, or switch injection off for it"
    )


def find_redirect_warnings(
    pod: Pod, redirect: Redirect, addresses: tuple[Address, ...], *, knows_families: bool = True
) -> Iterator[str]:
    """List the warnings about a redirected pod.

    `addresses` are those that are known; `knows_families`: the families are certain without further ones.
    """
    for each in early_containers(pod, redirect):
        yield describe_early(each, redirect.uid)
    yield from _without_effect(pod, redirect, knows_families=knows_families)
    yield from _both(redirect)
    yield from _identity(pod, redirect)
    if redirect.include_inbound_ports == ():
        why = "is empty" if TRAFFIC + "includeInboundPorts" in pod.annotations else "is absent and no port is declared"
        yield f"nothing inbound is redirected: {TRAFFIC}includeInboundPorts {why}"
    if bypassing := redirect.bypassing(addresses):
        yield (
            f"traffic of {_listed(bypassing)} bypasses the sidecar: IPv6 is redirected if it is the pod's first family, if "
            f"{PROXY} has the env ISTIO_DUAL_STACK=true, or if the agent's setting ipv6 is always"
        )


def find_runtime_warnings(pod: Pod, handler: str) -> Iterator[str]:
    """Warn that a redirect has no effect if the pod's runtime has its own network stack (F42).

    `handler` is that of its RuntimeClass; empty: unknown, so that the class's name has to do.
    """
    if runtime := own_network_stack(handler or pod.runtime_class):
        yield without_effect(pod, runtime)


def find_manifest_warnings(manifest: Mapping[str, Any], redirect: Redirect) -> Iterator[str]:
    """List the warnings that need the whole manifest: unknown keys, host network, the sidecar's rights under TPROXY."""
    yield from _unknown(manifest)
    spec = mapping(manifest.get("spec"))
    if spec.get("hostNetwork") is True:
        yield "the pod is on its node's network (hostNetwork): no CNI plugin is called for it, and nothing is redirected"
    if redirect.mode is not Mode.TPROXY:
        return
    for each in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        security = mapping(each.get("securityContext"))
        added = mapping(security.get("capabilities")).get("add")
        capable = security.get("privileged") or (isinstance(added, list) and "NET_ADMIN" in added)
        if each.get("name") == PROXY and not capable:
            yield f"under TPROXY {PROXY} needs the capability NET_ADMIN, or it cannot listen transparently and gets nothing"


def early_containers(pod: Pod, redirect: Redirect) -> Iterator[str]:
    """Name the application's init containers that run redirected before the sidecar is up (F21)."""
    if redirect.include_outbound == () and not redirect.include_outbound_ports:
        return
    for each in pod.init_containers:
        if each.name == PROXY:
            return
        if each.name not in OF_THE_MESH and not _taken_for_sidecar(each, pod, redirect):
            yield each.name


def describe_early(name: str, uid: int) -> str:
    """Describe the problem of such an init container, and the remedy."""
    return (
        f"init container {name} runs before the sidecar is up, and its outbound TCP is redirected there: it has "
        f"no network. Exclude what it needs with {TRAFFIC}excludeOutboundIPRanges or "
        f"{TRAFFIC}excludeOutboundPorts, run it as uid {uid}, or make the sidecar a native one (an init "
        "container before it, restartPolicy Always)"
    )


def _unknown(manifest: Mapping[str, Any]) -> Iterator[str]:
    for key in annotations_of(manifest):
        name = key.removeprefix(TRAFFIC)
        if key.startswith(TRAFFIC) and name not in TRAFFIC_NAMES:
            near = difflib.get_close_matches(name, TRAFFIC_NAMES, 1)
            yield f"{key} is unknown and has no effect" + (f": is {TRAFFIC}{near[0]} meant?" if near else "")


def _without_effect(pod: Pod, redirect: Redirect, *, knows_families: bool) -> Iterator[str]:
    # Injectors always write 15020, which is never redirected anyhow.
    excluded = set(redirect.exclude_inbound_ports) - set(NEVER_INBOUND)
    if excluded and redirect.include_inbound_ports is not EVERYTHING:
        yield f"{TRAFFIC}excludeInboundPorts has no effect, as it counts only where includeInboundPorts is *"
    if redirect.include_outbound_ports and redirect.include_outbound is EVERYTHING:
        yield f"{TRAFFIC}includeOutboundPorts has no effect, as includeOutboundIPRanges is * and all ports are redirected"
    if REROUTE in pod.annotations and TRAFFIC + "kubevirtInterfaces" in pod.annotations:
        yield f"{TRAFFIC}kubevirtInterfaces has no effect, as {REROUTE} wins"
    if Family.V6 not in redirect.families:
        ranges = () if redirect.include_outbound is EVERYTHING else redirect.include_outbound
        if unused := [str(cidr) for cidr in (*ranges, *redirect.exclude_outbound) if cidr.version == Family.V6.version]:
            when = ", as the pod's IPv6 is not redirected" if knows_families else " unless the pod's IPv6 is redirected"
            yield f"the IPv6 ranges {_listed(unused)} have no effect{when}"


def _both(redirect: Redirect) -> Iterator[str]:
    """Name what is both included and excluded, and say which of the two wins."""
    if both := set(redirect.include_outbound_ports) & set(redirect.exclude_outbound_ports):
        yield f"outbound port {_listed(sorted(both))} is both included and excluded: it is not redirected"
    included = redirect.include_inbound_ports
    if included is not EVERYTHING and (both := set(included) & set(redirect.exclude_inbound_ports)):
        yield f"inbound port {_listed(sorted(both))} is both included and excluded: it is redirected"
    if redirect.include_outbound is not EVERYTHING and (
        ranges := set(redirect.include_outbound) & set(redirect.exclude_outbound)
    ):
        yield f"the range {_listed(sorted(map(str, ranges)))} is both included and excluded: it is not redirected"
    if names := set(redirect.exclude_interfaces) & set(redirect.reroute_interfaces):
        yield f"interface {_listed(sorted(names))} is both excluded and rerouted: it is not redirected"


def _identity(pod: Pod, redirect: Redirect) -> Iterator[str]:
    """The rules recognise the sidecar's traffic by uid and gid, and so that of any other process with these ids."""
    proxy = pod.proxy
    # Root in the mesh's group, as injectors write for TPROXY, is recognised by its gid.
    if proxy and _user(proxy, pod) == 0 and _group(proxy, pod) != redirect.gid:
        yield (
            f"{PROXY} runs as root, which counts as uid {SIDECAR}: its own traffic is redirected to itself. Set its "
            f"runAsUser to {SIDECAR}, or its runAsGroup"
        )
    for each in pod.containers:
        if each.name != PROXY and (shared := _taken_for_sidecar(each, pod, redirect)):
            yield f"container {each.name} runs as the sidecar's {shared}: its traffic bypasses the sidecar"


def _taken_for_sidecar(container: Container, pod: Pod, redirect: Redirect) -> str:
    """Name the id by which the rules mistake a container's traffic for the sidecar's; empty if there is none."""
    if _user(container, pod) == redirect.uid:
        return f"uid {redirect.uid}"
    return f"gid {redirect.gid}" if _group(container, pod) == redirect.gid else ""


def _user(container: Container, pod: Pod) -> int | None:
    return container.run_as_user if container.run_as_user is not None else pod.run_as_user


def _group(container: Container, pod: Pod) -> int | None:
    return container.run_as_group if container.run_as_group is not None else pod.run_as_group


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))

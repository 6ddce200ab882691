"""The parameters of a redirect, each with its value and its origin: annotation, env, securityContext or default."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from plugin import values
from plugin.keys import (
    DNS_CAPTURE,
    DROP_INVALID,
    DUAL_STACK,
    INCLUDE_INBOUND,
    INTERCEPTION_MODE,
    PROXY,
    REROUTE,
    TRAFFIC,
)
from plugin.redirect import METRICS, SIDECAR, Family, Mode, Redirect
from plugin.rulecount import rule_count
from plugin.values import EVERYTHING, InvalidValue, Port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from plugin.pod import Container, Pod
    from plugin.redirect import Ports
    from plugin.values import Address

_T = TypeVar("_T")

MOST_RULES = (
    2000  # in all tables and families: they take libnftables a tenth of a second, and the kernel half a megabyte
)
MODES = ", ".join(mode.value for mode in Mode) + " or NONE"


class InboundPorts(Enum):
    """The inbound ports of a pod without the annotation includeInboundPorts: its declared ones, or all."""

    CONTAINER_PORTS = "containerPorts"
    ALL = "*"


class Ipv6(Enum):
    """When v6 rules are written: if the sidecar listens on v6, for every pod, or for none."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Defaults:
    """The defaults for pods that do not set a parameter themselves."""

    inbound_ports: InboundPorts = InboundPorts.CONTAINER_PORTS
    ipv6: Ipv6 = Ipv6.AUTO


class Origin(Enum):
    """The origin of a parameter's value."""

    ANNOTATION = "annotation"
    ENV = "env"
    SECURITY_CONTEXT = "securityContext"
    CONTAINER_PORTS = "containerPorts"
    ADDRESSES = "addresses"
    SETTING = "setting"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: its field of `Redirect`, the key with which a pod sets it, its value and origin."""

    field: str
    key: str
    value: Any
    origin: Origin


Found: TypeAlias = tuple[_T, Origin]


def redirect(pod: Pod, proxy: Container, addresses: tuple[Address, ...] | None, defaults: Defaults) -> Redirect:
    """Build the redirect of a pod; arguments and errors as for `parameters`.

    The total number of rules is bounded: the rules of all lists add up, multiplied by interfaces and families.
    """
    found = [*parameters(pod, proxy, addresses, defaults)]
    made = Redirect(**{each.field: each.value for each in found})
    if (number := rule_count(made)) > MOST_RULES:
        longest = max(found, key=_entries)
        raise InvalidValue(
            longest.key,
            f"{number} rules for all lists of the pod",
            f"at most {MOST_RULES}: shorten its longest list, this one with {_entries(longest)} entries, by larger ranges or *",
        )
    return made


def _entries(parameter: Parameter) -> int:
    is_list = isinstance(parameter.value, tuple) and parameter.field != "families"
    return len(parameter.value) if is_list else 0


def parameters(
    pod: Pod, proxy: Container, addresses: tuple[Address, ...] | None, defaults: Defaults
) -> Iterator[Parameter]:
    """Read the parameters of a redirected pod, one for each field of `Redirect`.

    Args:
        pod: the pod.
        proxy: its sidecar.
        addresses: the pod's addresses, in prevResult's order; None: unknown so far.
        defaults: for what the pod does not set.

    Raises:
        InvalidValue: for an invalid value, rather than a redirect other than the requested one.
    """

    def annotation(field: str, key: str, parse: Callable[[str, str], object], absent: Found[object]) -> Parameter:
        text = pod.annotations.get(key)
        return Parameter(field, key, *(absent if text is None else (parse(key, text), Origin.ANNOTATION)))

    def traffic(field: str, name: str, parse: Callable[[str, str], object], absent: object) -> Parameter:
        return annotation(field, TRAFFIC + name, parse, (absent, Origin.DEFAULT))

    def env(field: str, name: str) -> Parameter:
        origin = Origin.ENV if name in proxy.env else Origin.DEFAULT
        return Parameter(field, name, _boolean_env(proxy, name), origin)

    yield annotation("mode", INTERCEPTION_MODE, _mode, (Mode.REDIRECT, Origin.DEFAULT))
    yield Parameter("families", DUAL_STACK, *_families(proxy, addresses, defaults.ipv6))
    yield Parameter("uid", "runAsUser", *_id(proxy.run_as_user, pod.run_as_user))
    yield Parameter("gid", "runAsGroup", *_id(proxy.run_as_group, pod.run_as_group))
    unsaid = _inbound_ports(pod, defaults) if INCLUDE_INBOUND not in pod.annotations else ((), Origin.DEFAULT)
    yield annotation("include_inbound_ports", INCLUDE_INBOUND, values.ports_or_all, unsaid)
    yield traffic("exclude_inbound_ports", "excludeInboundPorts", values.ports, ())
    yield traffic("include_outbound", "includeOutboundIPRanges", values.cidrs_or_all, EVERYTHING)
    yield traffic("exclude_outbound", "excludeOutboundIPRanges", values.cidrs, ())
    yield traffic("include_outbound_ports", "includeOutboundPorts", values.ports, ())
    yield traffic("exclude_outbound_ports", "excludeOutboundPorts", values.ports, (METRICS,))
    yield traffic("exclude_interfaces", "excludeInterfaces", values.interfaces, ())
    reroute = REROUTE if REROUTE in pod.annotations else TRAFFIC + "kubevirtInterfaces"
    yield annotation("reroute_interfaces", reroute, values.interfaces, ((), Origin.DEFAULT))
    yield env("dns_capture", DNS_CAPTURE)
    yield env("drop_invalid", DROP_INVALID)


def _mode(key: str, text: str) -> Mode:
    try:
        return Mode(text)
    except ValueError:
        raise InvalidValue(key, text, MODES) from None


def _boolean_env(proxy: Container, name: str) -> bool:
    return values.boolean(f"env {name} of {PROXY}", proxy.env.get(name, ""))


def _id(*ids: int | None) -> Found[int]:
    """The first given id counts; 0 is replaced by the sidecar's default, as not all of root's traffic is the proxy's."""
    given = next((each for each in ids if each is not None), 0)
    return (given, Origin.SECURITY_CONTEXT) if given else (SIDECAR, Origin.DEFAULT)


def _inbound_ports(pod: Pod, defaults: Defaults) -> Found[Ports]:
    if defaults.inbound_ports is InboundPorts.ALL:
        return EVERYTHING, Origin.SETTING
    declared = [port for each in (*pod.containers, *pod.init_containers) if each.name != PROXY for port in each.ports]
    if pod.declared_ports > values.MOST:
        raise InvalidValue(
            "containerPorts", str(pod.declared_ports), f"at most {values.MOST}; for more, set {INCLUDE_INBOUND} to *"
        )
    return tuple(map(Port, declared)), Origin.CONTAINER_PORTS


def _families(proxy: Container, addresses: tuple[Address, ...] | None, ipv6: Ipv6) -> Found[tuple[Family, ...]]:
    """V4 always; v6 if the proxy may listen on it: it is or may be the pod's first family, or the proxy is dual-stack.

    A dual-stack proxy gets it even without a v6 address: one added after the ADD, such as from a router's
    advertisement, must not bypass it (F38).
    """
    dual_stack = _boolean_env(proxy, DUAL_STACK)
    if ipv6 is not Ipv6.AUTO:
        return (Family.V4, Family.V6) if ipv6 is Ipv6.ALWAYS else (Family.V4,), Origin.SETTING
    first = next((each for each in addresses or () if not each.is_link_local), None)
    if addresses is None or (first and first.version == 6):
        return (Family.V4, Family.V6), Origin.ADDRESSES
    origin = Origin.ENV if DUAL_STACK in proxy.env else Origin.DEFAULT
    return (Family.V4, Family.V6) if dual_stack else (Family.V4,), origin

"""A pod, reduced to what the decision needs: a few typed fields of its manifest (F19: nothing else is stored)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from plugin.keys import ENV, INIT, INJECT, LONGEST_WORD, PROXY, STATIC_POD_IDS, STATUS, of_the_mesh
from plugin.values import MOST

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# A tenant may declare as many containers, ports and env as fit into 1.5 MB: thousands.
LONGEST_NAME = 253  # characters of an object's name
MOST_CONTAINERS = 64  # of each kind, besides the mesh's own, whose names and ids are stored

_T = TypeVar("_T")
_NO_ENV: Mapping[str, str] = {}
_KINDS: Mapping[type, str] = {dict: "mapping", list: "list", str: "string"}


class ManifestError(ValueError):
    """A manifest that no API server would accept: the message holds the path, what was seen and what was expected."""


class PodsUnavailable(Exception):  # noqa: N818 - a state of the source, not a mistake
    """The pods cannot be looked up now; the message holds reason and remedy."""


class PodSource(Protocol):
    """The source of this node's pods: the cluster, or a folder of manifests."""

    async def find(self, namespace: str, name: str, uid: str | None, *, fresh: bool = False) -> Pod | None:
        """Find one pod.

        Args:
            namespace: the pod's namespace.
            name: the pod's name.
            uid: the runtime's `K8S_POD_UID`, which distinguishes a pod from an earlier one of the same name; None if unknown.
            fresh: request the complete pod from its origin, even if it is cached.

        Returns:
            The pod, or None if it certainly does not exist.

        Raises:
            PodsUnavailable: if the source cannot answer.
        """

    def cached(self, namespace: str, name: str, uid: str | None) -> Pod | None:
        """Return the cached pod, without a request; without a uid, an injected pod of that name takes precedence."""


class Phase(Enum):
    """A pod's `status.phase`."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Container:
    """One container: ports are its declared TCP containerPorts.

    Only the sidecar has its first two args, and the literal values of the relevant env.
    """

    name: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=lambda: _NO_ENV)
    ports: tuple[int, ...] = ()
    run_as_user: int | None = None
    run_as_group: int | None = None
    native_sidecar: bool = False


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod.

    Attributes:
        annotations: those selected by `plugin.keys.of_the_mesh`.
        labels: `sidecar.istio.io/inject`, if set.
        containers: the sidecar and a bounded number of others.
        init_containers: likewise, including native sidecars and `istio-init`.
        declared_ports: how many different TCP ports its containers declare, except the sidecar.
        at_once: how many containers run at the same time: all but those that end before others start.
        failing: the init containers whose last run failed.
        maybe_stale: found by name alone during an outage: it may be an earlier pod of that name.
        running: whether it has its own network, a started container, and has not ended; while it terminates, whether a
            container still runs.
        terminating: whether it is being deleted.
        ips: its addresses as the API server reports them.
        runtime_class: its `spec.runtimeClassName`; none of the four decides anything.
    """

    namespace: str
    name: str
    uid: str
    annotations: Mapping[str, str]
    labels: Mapping[str, str]
    containers: tuple[Container, ...]
    init_containers: tuple[Container, ...]
    declared_ports: int = 0
    at_once: int = 0
    run_as_user: int | None = None
    run_as_group: int | None = None
    static_ids: tuple[str, ...] = ()
    node_name: str | None = None
    host_network: bool = False
    phase: Phase = Phase.UNKNOWN
    failing: tuple[str, ...] = ()
    maybe_stale: bool = field(default=False, compare=False)
    running: bool = False
    terminating: bool = False
    ips: tuple[str, ...] = ()
    runtime_class: str = ""

    @property
    def is_injected(self) -> bool:
        """Whether an injector has added it to the mesh."""
        return STATUS in self.annotations

    @property
    def proxy(self) -> Container | None:
        """The sidecar, as a container or as a native sidecar among the init containers."""
        return next((c for c in (*self.containers, *self.init_containers) if c.name == PROXY), None)

    def has_uid(self, uid: str | None) -> bool:
        """Whether the runtime's `K8S_POD_UID` is this pod's (a static pod's is the hash of its manifest)."""
        return uid is None or uid == self.uid or uid in self.static_ids

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> Pod:
        """Reduce a parsed Pod manifest to what the decision needs.

        Raises:
            ManifestError: with the path of the field, what was seen and what was expected.
        """
        metadata = _get(manifest, "metadata", dict, {})
        spec = _get(manifest, "spec", dict, {})
        annotations = _strings(metadata, "annotations", "metadata")
        labels = _strings(metadata, "labels", "metadata")
        security = _get(spec, "securityContext", dict, {}, path="spec")
        name = _get(metadata, "name", str, "", path="metadata")
        if not name:
            raise ManifestError("metadata.name: missing, expected the pod's name")
        ports: set[int] = set()
        containers, init = ([*_containers(spec, kind, ports)] for kind in ("containers", "initContainers"))
        status = _mapping(manifest.get("status"))
        terminating = bool(metadata.get("deletionTimestamp"))
        kept = _kept(init)
        return cls(
            namespace=_get(metadata, "namespace", str, "", path="metadata") or "default",
            name=name,
            uid=_get(metadata, "uid", str, "", path="metadata"),
            annotations=of_the_mesh(annotations),
            labels={k: v for k, v in labels.items() if k == INJECT},
            containers=_kept(containers),
            init_containers=kept,
            declared_ports=len(ports),
            at_once=len(containers) + sum(each.native_sidecar for each in init),
            run_as_user=_id(security, "runAsUser", "spec.securityContext"),
            run_as_group=_id(security, "runAsGroup", "spec.securityContext"),
            static_ids=tuple(annotations[k][:LONGEST_WORD] for k in STATIC_POD_IDS if k in annotations),
            node_name=_get(spec, "nodeName", str, "", path="spec") or None,
            host_network=spec.get("hostNetwork") is True,
            phase=_phase(status.get("phase")),
            failing=tuple({*_failing(status)} & {each.name for each in kept}),
            running=spec.get("hostNetwork") is not True and _is_running(status, terminating=terminating),
            terminating=terminating,
            ips=tuple(_ips(status)),
            runtime_class=str(spec.get("runtimeClassName") or "")[:LONGEST_NAME],
        )

    def is_decided_like(self, other: Pod) -> bool:
        """Whether nothing relevant to the decision differs except addresses: a pod's status changes all the time."""
        return self is other or self._lasting() == other._lasting()

    def _lasting(self) -> Pod:
        return replace(self, phase=Phase.UNKNOWN, failing=(), running=False, terminating=False, ips=())

    def trimmed(self) -> Pod:
        """Reduce a pod that is not redirected to little more than its identity: most of a node's pods may be such."""
        if self.is_injected and not self.host_network:
            return self
        annotations = {} if self.host_network else self.annotations
        return replace(self, annotations=annotations, containers=(), init_containers=(), failing=(), ips=())


def _containers(spec: Mapping[str, Any], kind: str, seen: set[int]) -> Iterator[Container]:
    """Read the containers, each with the ports that no earlier one declares, bounded by what may be redirected."""
    for index, item in enumerate(_get(spec, kind, list, [], path="spec")):
        path = f"spec.{kind}[{index}]"
        if not isinstance(item, dict):
            raise ManifestError(f"{path}: saw {item!r:.60}, expected a mapping")
        security = _get(item, "securityContext", dict, {}, path=path)
        name, args = _get(item, "name", str, "", path=path), _get(item, "args", list, [], path=path)
        is_proxy = name == PROXY
        yield Container(
            name=name[:LONGEST_WORD],
            args=tuple(str(arg)[:LONGEST_WORD] for arg in args[:2]) if is_proxy else (),
            env=_env(item, path) if is_proxy else _NO_ENV,
            ports=tuple(_ports(item, path, set() if is_proxy else seen)),
            run_as_user=_id(security, "runAsUser", f"{path}.securityContext"),
            run_as_group=_id(security, "runAsGroup", f"{path}.securityContext"),
            native_sidecar=kind == "initContainers" and item.get("restartPolicy") == "Always",
        )


def _kept(containers: list[Container]) -> tuple[Container, ...]:
    """Choose the relevant containers: the mesh's, those with ports, and the first of the others."""
    if len(containers) <= MOST_CONTAINERS:
        return tuple(containers)
    first = {id(each) for each in containers[:MOST_CONTAINERS]}
    return tuple(each for each in containers if each.name in (PROXY, INIT) or each.ports or id(each) in first)


def _phase(value: object) -> Phase:
    try:
        return Phase(value)
    except ValueError:
        return Phase.UNKNOWN


def _failing(status: Mapping[str, Any]) -> Iterator[str]:
    """Read the names. No decision depends on them, so malformed content must not prevent a pod from starting."""
    statuses = status.get("initContainerStatuses")
    for each in statuses if isinstance(statuses, list) else ():
        item = _mapping(each)
        ended = [_mapping(_mapping(item.get(key)).get("terminated")) for key in ("state", "lastState")]
        latest: Mapping[str, Any] = next(filter(None, ended), {})
        if latest.get("exitCode"):
            yield str(item.get("name"))


def _is_running(status: Mapping[str, Any], *, terminating: bool) -> bool:
    """Whether a container has started and the pod has not ended.

    Its phase is Pending while its init containers run, and may stay Running after the containers of a deleted pod have ended.
    """
    phase = status.get("phase")
    if phase in ("Succeeded", "Failed"):
        return False
    listed = (status.get(kind) for kind in ("initContainerStatuses", "containerStatuses"))
    statuses = (_mapping(each) for found in listed if isinstance(found, list) for each in found)
    return (phase == "Running" and not terminating) or any(
        "running" in _mapping(each.get("state")) for each in statuses
    )


def _ips(status: Mapping[str, Any]) -> Iterator[str]:
    listed = status.get("podIPs")
    items = listed if isinstance(listed, list) and listed else [{"ip": status.get("podIP")}]
    for each in items[:2]:  # one of each family
        if ip := _mapping(each).get("ip"):
            yield str(ip)[:LONGEST_WORD]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _env(container: Mapping[str, Any], path: str) -> Mapping[str, str]:
    """Read the literal values; the last of equal names wins, even if it is not a literal."""
    found: dict[str, str] = {}
    for index, item in enumerate(_get(container, "env", list, [], path=path)):
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            raise ManifestError(f"{path}.env[{index}]: saw {item!r:.60}, expected a mapping with a name")
        if item["name"] not in ENV:
            continue
        found.pop(item["name"], None)
        if isinstance(item.get("value"), str):
            found[item["name"]] = item["value"][:LONGEST_WORD]
    return found


def _ports(container: Mapping[str, Any], path: str, seen: set[int]) -> Iterator[int]:
    for index, item in enumerate(_get(container, "ports", list, [], path=path)):
        port = item.get("containerPort") if isinstance(item, dict) else None
        if type(port) is not int or not 0 < port < 65536:
            raise ManifestError(f"{path}.ports[{index}].containerPort: saw {port!r:.60}, expected 1 to 65535")
        if item.get("protocol", "TCP") == "TCP" and port not in seen:
            seen.add(port)
            if len(seen) <= MOST:
                yield port


def _id(security: Mapping[str, Any], key: str, path: str) -> int | None:
    value = security.get(key)
    if value is not None and (type(value) is not int or not 0 <= value < 2**31):
        raise ManifestError(f"{path}.{key}: saw {value!r:.60}, expected a whole number from 0 to 2147483647")
    return value


def _strings(parent: Mapping[str, Any], key: str, path: str) -> Mapping[str, str]:
    mapping = _get(parent, key, dict, {}, path=path)
    for name, value in mapping.items():
        if not isinstance(name, str) or not isinstance(value, str):
            shown = name if isinstance(name, str) and name.isprintable() and len(name) < 320 else f"{name!r:.60}"
            raise ManifestError(f"{path}.{key}.{shown}: saw {value!r:.60}, expected a string (quote it)")
    return mapping


def _get(parent: Mapping[str, Any], key: str, kind: type[_T], default: _T, *, path: str = "") -> _T:
    value = parent.get(key)
    if value is None:
        return default
    if not isinstance(value, kind):
        raise ManifestError(f"{path}{'.' if path else ''}{key}: saw {value!r:.60}, expected a {_KINDS[kind]}")
    return value

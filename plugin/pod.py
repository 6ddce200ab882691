"""A pod as far as the decision needs it: a few fields of its manifest, typed (F19: nothing else is kept)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PROXY = "istio-proxy"
INJECT = "sidecar.istio.io/inject"
MESH_PREFIXES = ("sidecar.istio.io/", "traffic.sidecar.istio.io/", "istio.io/")
STATIC_POD_IDS = ("kubernetes.io/config.mirror", "kubernetes.io/config.hash")

_T = TypeVar("_T")
_KINDS: Mapping[type, str] = {dict: "mapping", list: "list", str: "string"}


class ManifestError(ValueError):
    """A manifest that no API server would accept: the message holds the path, what was seen and what was expected."""


class PodsUnavailable(Exception):  # noqa: N818 - a state of the source, not a mistake
    """The pods cannot be asked now; the message says why and what to do."""


class PodSource(Protocol):
    """Where the agent knows this node's pods from: the cluster, or a folder of manifests."""

    async def find(self, namespace: str, name: str, uid: str | None) -> Pod | None:
        """Find one pod.

        Args:
            namespace: the pod's namespace.
            name: the pod's name.
            uid: the runtime's `K8S_POD_UID`, which tells a pod from an earlier one of the same name; None if unknown.

        Returns:
            The pod, or None if the source is sure that there is none.

        Raises:
            PodsUnavailable: if the source cannot say.
        """


@dataclass(frozen=True, slots=True)
class Container:
    """One container: ports are its declared TCP containerPorts; env holds the literal values alone."""

    name: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[int, ...] = ()
    run_as_user: int | None = None
    run_as_group: int | None = None
    native_sidecar: bool = False


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod; annotations and labels are those of the mesh alone; failing are the init containers whose last try failed."""

    namespace: str
    name: str
    uid: str
    annotations: Mapping[str, str]
    labels: Mapping[str, str]
    containers: tuple[Container, ...]
    init_containers: tuple[Container, ...]
    run_as_user: int | None = None
    run_as_group: int | None = None
    static_ids: tuple[str, ...] = ()
    node_name: str | None = None
    failing: tuple[str, ...] = ()

    @property
    def proxy(self) -> Container | None:
        """The sidecar, as a container or as a native one among the init containers."""
        return next((c for c in (*self.containers, *self.init_containers) if c.name == PROXY), None)

    def has_uid(self, uid: str | None) -> bool:
        """Whether the runtime's `K8S_POD_UID` is this pod's (a static pod's is the hash of its manifest)."""
        return uid is None or uid == self.uid or uid in self.static_ids

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> Pod:
        """Trim a Pod manifest, as JSON or YAML parse to it, to what the decision needs.

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
        return cls(
            namespace=_get(metadata, "namespace", str, "", path="metadata") or "default",
            name=name,
            uid=_get(metadata, "uid", str, "", path="metadata"),
            annotations={k: v for k, v in annotations.items() if k.startswith(MESH_PREFIXES)},
            labels={k: v for k, v in labels.items() if k == INJECT},
            containers=tuple(_containers(spec, "containers")),
            init_containers=tuple(_containers(spec, "initContainers")),
            run_as_user=_id(security, "runAsUser", "spec.securityContext"),
            run_as_group=_id(security, "runAsGroup", "spec.securityContext"),
            static_ids=tuple(annotations[k] for k in STATIC_POD_IDS if k in annotations),
            node_name=_get(spec, "nodeName", str, "", path="spec") or None,
            failing=tuple(_failing(manifest.get("status"))),
        )


def _containers(spec: Mapping[str, Any], kind: str) -> Iterator[Container]:
    for index, item in enumerate(_get(spec, kind, list, [], path="spec")):
        path = f"spec.{kind}[{index}]"
        if not isinstance(item, dict):
            raise ManifestError(f"{path}: saw {item!r:.60}, expected a mapping")
        security = _get(item, "securityContext", dict, {}, path=path)
        yield Container(
            name=_get(item, "name", str, "", path=path),
            args=tuple(str(arg) for arg in _get(item, "args", list, [], path=path)),
            env=dict(_env(item, path)),
            ports=tuple(_ports(item, path)),
            run_as_user=_id(security, "runAsUser", f"{path}.securityContext"),
            run_as_group=_id(security, "runAsGroup", f"{path}.securityContext"),
            native_sidecar=kind == "initContainers" and item.get("restartPolicy") == "Always",
        )


def _failing(status: object) -> Iterator[str]:
    """Name them. Nothing is decided by it, so that nothing that it may hold keeps a pod from starting."""
    statuses = _mapping(status).get("initContainerStatuses")
    for each in statuses if isinstance(statuses, list) else ():
        item = _mapping(each)
        ended = [_mapping(_mapping(item.get(key)).get("terminated")) for key in ("state", "lastState")]
        latest: Mapping[str, Any] = next(filter(None, ended), {})
        if latest.get("exitCode"):
            yield str(item.get("name"))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _env(container: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    if container.get("name") != PROXY:
        return
    for index, item in enumerate(_get(container, "env", list, [], path=path)):
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            raise ManifestError(f"{path}.env[{index}]: saw {item!r:.60}, expected a mapping with a name")
        if isinstance(item.get("value"), str):
            yield item["name"], item["value"]


def _ports(container: Mapping[str, Any], path: str) -> Iterator[int]:
    for index, item in enumerate(_get(container, "ports", list, [], path=path)):
        port = item.get("containerPort") if isinstance(item, dict) else None
        if type(port) is not int or not 0 < port < 65536:
            raise ManifestError(f"{path}.ports[{index}].containerPort: saw {port!r:.60}, expected 1 to 65535")
        if item.get("protocol", "TCP") == "TCP":
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

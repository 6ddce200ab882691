"""Pods in manifests of any kind: Pods, pod templates of workloads, lists and bundles of both.

A template is recognised by its shape anywhere in an object: a mapping with `metadata` and a `spec` that lists `containers`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from installer.documents.objects import mapping, objects_in
from plugin.keys import STATUS
from plugin.pod import ManifestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_Path: TypeAlias = "tuple[str | int, ...]"

# The path of the template in Kubernetes' own kinds: a missing one is an error, not another kind.
TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "PodTemplate": ("template",),
} | dict.fromkeys(
    ("DaemonSet", "Deployment", "Job", "ReplicaSet", "ReplicationController", "StatefulSet"), ("spec", "template")
)
DEEPEST_TEMPLATE = 32  # levels: a Deployment in a composition in a list needs a dozen
# API groups whose kinds hold no pods, besides those without a dot and Istio's: Kubernetes' own, and common add-ons.
WITHOUT_PODS = frozenset(
    f"{name}.k8s.io"
    for name in (
        *(
            "admissionregistration",
            "apiextensions",
            "apiregistration",
            "authentication",
            "authorization",
            "certificates",
        ),
        *("coordination", "discovery", "events", "flowcontrol.apiserver", "gateway.networking", "internal.apiserver"),
        *("kustomize.config", "metrics", "networking", "node", "rbac.authorization", "resource", "scheduling"),
        *("snapshot.storage", "storage", "storagemigration"),
    )
)


class PodManifest(NamedTuple):
    """A pod's manifest, and the object that contains it.

    A template's pods get their own names when they run; here it has the name of its workload.

    Attributes:
        path: the template's path in the object, such as `spec.template`; empty for a Pod.
        is_one_of_several: whether the object has other templates as well.
        injected_at: the path of a `metadata` with the injector's annotation that is not the template's own but one
            on the way to it; empty otherwise.
    """

    manifest: Mapping[str, Any]
    kind: str
    path: str = ""
    is_one_of_several: bool = False
    injected_at: str = ""

    @property
    def is_template(self) -> bool:
        """Whether pods are made from it, whose names begin with its own."""
        return self.kind != "Pod"


class Other(NamedTuple):
    """An object without a pod template.

    Attributes:
        is_known: whether its kind is known to hold no pods, such as a Service.
        refers_to: kind and name of the object whose template it references; empty if it references none.
    """

    kind: str
    name: str
    is_known: bool
    refers_to: str = ""


def pods(document: object) -> Iterator[PodManifest | Other]:
    """Find the pods in a document, as parsed from JSON or YAML. An empty one holds nothing.

    Raises:
        ManifestError: if it is not a Kubernetes object, or its template is not in the expected place.
    """
    if document is not None:
        for each in objects_in(document):
            yield from _pods_of(each)


def _pods_of(document: object) -> Iterator[PodManifest | Other]:
    kind = document.get("kind") if isinstance(document, dict) else document
    if not isinstance(document, dict) or not isinstance(kind, str) or not kind:
        raise ManifestError(f"saw kind {kind!r:.60}, expected Pod, {', '.join(sorted(TEMPLATES))} or a List of them")
    is_kubernetes = "." not in _group(document)
    if kind == "Pod" and is_kubernetes:
        yield PodManifest(_with_name(document), kind)
    elif kind in TEMPLATES and is_kubernetes:
        _check(document, TEMPLATES[kind])
        yield _template_pod(document, document, TEMPLATES[kind])
    else:
        found = [*_search(document, document, document, ())]
        yield from (each._replace(is_one_of_several=len(found) > 1) for each in found)
        if not found:
            yield _other(document, kind)


def _search(document: Mapping[str, Any], maker: Mapping[str, Any], value: object, path: _Path) -> Iterator[PodManifest]:
    """Find the templates in a value at a path of a document; `maker` is the innermost object around it."""
    if len(path) > DEEPEST_TEMPLATE:
        return
    if isinstance(value, list):
        for index, each in enumerate(value):
            yield from _search(document, maker, each, (*path, index))
    if not isinstance(value, dict):
        return
    # A nested object has a name of its own, except a template written as a Pod.
    is_object = isinstance(value.get("kind"), str) and isinstance(value.get("metadata"), dict)
    if is_object and not str(path[-1] if path else "").lower().endswith("template"):
        maker = value
    # Containers of an object that is no pod belong to other pods, such as those of a SidecarSet.
    if _is_template(value) and (value is not maker or value.get("kind") == "Pod"):
        yield _template_pod(document, maker, path)
        return
    for key, each in value.items():
        yield from _search(document, maker, each, (*path, key))


def _is_template(value: Mapping[str, Any]) -> bool:
    spec = value.get("spec")
    return isinstance(spec, dict) and isinstance(spec.get("containers"), list)


def _other(document: Mapping[str, Any], kind: str) -> Other:
    group = _group(document)
    is_known = bool(document.get("apiVersion")) and (
        "." not in group or group in WITHOUT_PODS or group.endswith(".istio.io")
    )
    return Other(kind, str(mapping(document.get("metadata")).get("name", "")), is_known, _reference(document))


def _reference(document: Mapping[str, Any]) -> str:
    """Read the reference to another object's template, as in an Argo Rollout."""
    reference = mapping(mapping(document.get("spec")).get("workloadRef"))
    return f"{reference.get('kind')} {reference.get('name')}" if reference.get("name") else ""


def _group(document: Mapping[str, Any]) -> str:
    """Read the API group; empty for Kubernetes' core."""
    api_version = document.get("apiVersion")
    return api_version.rpartition("/")[0] if isinstance(api_version, str) else ""


def _check(document: Mapping[str, Any], path: _Path) -> None:
    value: Any = document
    for index, key in enumerate(path):
        value = value.get(key)
        if not isinstance(value, dict):
            raise ManifestError(f"{_text(path[: index + 1])}: saw {value!r:.60}, expected a mapping")


def _template_pod(document: Mapping[str, Any], maker: Mapping[str, Any], path: _Path) -> PodManifest:
    """Build the manifest of a template's pod, with the name and namespace of its workload."""
    template = _at(document, path)
    if maker is template:  # a Pod in another object
        return PodManifest(_with_name(template), "Pod", _text(path))
    for at, value in (("metadata", maker.get("metadata")), (_text((*path, "metadata")), template.get("metadata"))):
        if value is not None and not isinstance(value, dict):
            raise ManifestError(f"{at}: saw {value!r:.60}, expected a mapping")
    template_metadata, names = mapping(template.get("metadata")), mapping(_with_name(maker).get("metadata"))
    metadata = {key: value for key, value in template_metadata.items() if value is not None}
    metadata |= {key: names[key] for key in ("name", "namespace") if names.get(key) is not None}
    spec = {"spec": template["spec"]} if "spec" in template else {}
    injected_at = "" if STATUS in annotations_of(template) else _injected_at(document, path)
    return PodManifest(
        {"kind": "Pod", "metadata": metadata, **spec}, str(maker["kind"]), _text(path), injected_at=injected_at
    )


def _injected_at(document: Mapping[str, Any], path: _Path) -> str:
    """Find the injector's annotation in a `metadata` on the way to a template, the innermost first."""
    above = (path[:length] for length in reversed(range(len(path))))
    return next((_text((*each, "metadata")) for each in above if STATUS in annotations_of(_at(document, each))), "")


def _with_name(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Use the prefix of the generated name (`generateName`) if there is no name yet."""
    metadata = document.get("metadata")
    if not isinstance(metadata, dict) or metadata.get("name") or not isinstance(metadata.get("generateName"), str):
        return document
    return {**document, "metadata": {**metadata, "name": metadata["generateName"].rstrip("-")}}


def _at(document: Mapping[str, Any], path: _Path) -> Any:
    value: Any = document
    for key in path:
        value = value[key]
    return value


def _text(path: _Path) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).removeprefix(".")


def annotations_of(manifest: object) -> Mapping[str, Any]:
    """Return the annotations of a manifest or pod template; their values may be of any type."""
    return mapping(mapping(mapping(manifest).get("metadata")).get("annotations"))

"""Pods in manifests of any kind: a Pod itself, what makes pods from a template, lists of both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from plugin.pod import ManifestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Where the template of a pod is, by kind.
TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "PodTemplate": ("template",),
} | dict.fromkeys(
    ("DaemonSet", "Deployment", "Job", "ReplicaSet", "ReplicationController", "StatefulSet"), ("spec", "template")
)


class PodManifest(NamedTuple):
    """A pod's manifest, and the kind of object that it is in.

    The pods of a template have names of their own when they run; here it is called by that of what makes them.
    """

    manifest: Mapping[str, Any]
    kind: str
    path: str = ""  # of the pod in the object, with a dot at its end

    @property
    def is_template(self) -> bool:
        """Whether pods are made from it, whose names begin with its own."""
        return self.kind != "Pod"


class Other(NamedTuple):
    """An object that holds no pods, such as a Service."""

    kind: str
    name: str


def pods(document: object) -> Iterator[PodManifest | Other]:
    """Find the pods in a document, as JSON or YAML parse it. An empty one holds nothing.

    Raises:
        ManifestError: if it is no Kubernetes object, or its template is not where it should be.
    """
    if document is None:
        return
    kind = document.get("kind") if isinstance(document, dict) else document
    if not isinstance(document, dict) or not isinstance(kind, str) or not kind:
        raise ManifestError(f"saw kind {kind!r:.60}, expected Pod, {', '.join(sorted(TEMPLATES))} or a List of them")
    if kind == "Pod":
        yield PodManifest(document, kind)
    elif kind in TEMPLATES:
        yield PodManifest(_from_template(document, TEMPLATES[kind]), kind, ".".join(TEMPLATES[kind]) + ".")
    elif kind.endswith("List") and "items" in document:
        items = document["items"]
        for item in items if isinstance(items, list) else ():
            # The items of a PodList need not say what they are.
            named = isinstance(item, dict) and "kind" not in item and kind != "List"
            yield from pods({"kind": kind.removesuffix("List"), **item} if named else item)
    else:
        metadata = document.get("metadata")
        yield Other(kind, str(metadata.get("name", "")) if isinstance(metadata, dict) else "")


def _from_template(document: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any]:
    """Make the manifest of the pod that a template describes: name and namespace are its maker's."""
    template: Any = document
    for index, key in enumerate(path):
        template = template.get(key)
        if not isinstance(template, dict):
            raise ManifestError(f"{'.'.join(path[: index + 1])}: saw {template!r:.60}, expected a mapping")
    maker, own = document.get("metadata"), template.get("metadata")
    for key, metadata in (("metadata", maker), (f"{'.'.join(path)}.metadata", own)):
        if metadata is not None and not isinstance(metadata, dict):
            raise ManifestError(f"{key}: saw {metadata!r:.60}, expected a mapping")
    names = {key: (maker or {}).get(key) for key in ("name", "namespace")}
    given = {key: value for key, value in (own or {}).items() if value is not None}
    return {"kind": "Pod", "metadata": {k: v for k, v in names.items() if v is not None} | given, **_spec(template)}


def _spec(template: Mapping[str, Any]) -> dict[str, Any]:
    return {"spec": template["spec"]} if "spec" in template else {}

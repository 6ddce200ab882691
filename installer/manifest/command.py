"""Wires `install-cni manifest`: files and `--set` in, manifests or differences out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from installer.config.control_plane import GROUP, PLURAL
from installer.documents.reader import read_file
from installer.manifest import helm
from installer.manifest.chartvalues import PLATFORM, Refused, build_request, move_set_values
from installer.manifest.kubectl import Kubectl
from installer.manifest.overlay import complete, control_plane, deep_merge, dump, read_objects
from installer.manifest.programs import ProgramError, find
from installer.terminal.printable import say
from plugin.pod import ManifestError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of the commands."""

    files: tuple[str, ...]
    sets: tuple[str, ...]
    set_strings: tuple[str, ...]
    platform: str | None
    namespace: str
    create_namespace: bool
    chart: Path | None
    kube_version: str | None
    helm: Path | None


NO_HUB = "no hub is set: nodes must already hold the image; --set hub=registry.example.org/mesh names a registry to pull from"
# Of the functions here: each says what was seen, what was expected and what to do.
FAILURES = (ManifestError, ProgramError, Refused, OSError)


def generate(options: Options) -> str:
    """Make the manifests: YAML documents in the order to apply them, the resource last.

    For a resource with `enabled: false`, these are only the resource and its definition: running agents apply it, and
    without any, none are needed.
    """
    program, folder = find("helm", options.helm), helm.find_chart(options.chart)
    resource = complete(_read_resource(options, program), options.namespace)
    rendering = build_request(resource, helm.value_names(folder))
    for note in rendering.notes:
        _note(note)
    manifests = helm.render(program, folder, rendering.namespace, rendering.values, options.kube_version)
    if rendering.enabled and not rendering.values["cni"].get("hub"):
        _note(NO_HUB)
    if not rendering.enabled:
        _note(
            "spec.cni.enabled is false: the output is this resource and its definition alone; running agents "
            "remove the plugin from their nodes and keep running"
        )
        manifests = _definition(manifests)
    manifests += f"---\n{dump(resource)}"
    return _namespaces(manifests) + manifests if options.create_namespace else manifests


def difference(options: Options, kubectl: Path | None, where: list[str]) -> str:
    """Compare the output of `generate` with the cluster."""
    cluster = Kubectl(find("kubectl", kubectl), where)
    return cluster.difference(read_objects(generate(_for(cluster, options))))


def apply(options: Options, kubectl: Path | None, where: list[str]) -> Iterator[str]:
    """Apply the output of `generate`, and yield kubectl's output about the objects."""
    cluster = Kubectl(find("kubectl", kubectl), where)
    yield from cluster.apply(read_objects(generate(_for(cluster, options))))


def _for(cluster: Kubectl, options: Options) -> Options:
    """Render the manifests for the cluster's version, unless another is given."""
    return options if options.kube_version else replace(options, kube_version=cluster.version())


def _read_resource(options: Options, program: Path) -> dict[str, Any]:
    """Merge the files, later ones overriding earlier ones, then `--set`."""
    resource: dict[str, Any] = {}
    for name in options.files:
        try:
            found, others = control_plane(read_objects(read_file(name)))
        except OSError as error:
            raise ManifestError(f"{name}: {error.strerror}") from error
        except ManifestError as error:
            raise ManifestError(f"{name}: {error}") from error
        for other in others:
            _note(f"{name}: {other} is omitted")
        resource = deep_merge(resource, found)
    strings = [*options.set_strings, *([f"{PLATFORM}={options.platform}"] if options.platform else [])]
    spec = resource.get("spec", {})
    if isinstance(spec, dict) and (options.sets or strings):
        resource["spec"] = move_set_values(spec, helm.with_set(program, spec, options.sets, strings))
    return resource


def _definition(manifests: str) -> str:
    """Keep only the definition of the resource, without which the API server rejects the resource."""
    found = [each for each in read_objects(manifests) if each["metadata"]["name"] == f"{PLURAL}.{GROUP}"]
    return "".join(f"---\n{dump(each)}" for each in found)


def _namespaces(manifests: str) -> str:
    """Make the namespaces that manifests need, except those that every cluster has."""
    needed = {each["metadata"].get("namespace") for each in read_objects(manifests)} - {None, "default", "kube-system"}
    namespaces = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in sorted(needed)]
    return "".join(f"---\n{dump(each)}" for each in namespaces)


def _note(text: str) -> None:
    say(f"note: {text}", err=True)

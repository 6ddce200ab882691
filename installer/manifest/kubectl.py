"""Compares and applies objects with the user's kubectl."""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from installer.manifest.overlay import dump
from installer.manifest.programs import ProgramError, checked, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from subprocess import CompletedProcess

    Object = Mapping[str, Any]


DEFINITION = "CustomResourceDefinition"
SLOWEST_DEFINITION = 60  # seconds until the API server serves it


class Kubectl(NamedTuple):
    """kubectl, and the options that select a cluster; it raises ProgramError with what kubectl says is wrong."""

    program: Path
    options: Sequence[str]

    def version(self) -> str:
        """Read the cluster's version of Kubernetes, such as v1.35.4."""
        output = checked(self._run("version", "--output=json"))
        try:
            return str(json.loads(output)["serverVersion"]["gitVersion"])
        except (ValueError, TypeError, LookupError) as error:
            raise ProgramError(f"kubectl version: saw {output!r:.200}, expected serverVersion.gitVersion") from error

    def difference(self, objects: Sequence[Object]) -> str:
        """Compare objects with the cluster's, like `kubectl diff`; nothing is changed.

        Objects whose namespace or definition does not exist yet are entirely new: the API server cannot compare them.

        Returns:
            Unified diffs; empty: applying them would change nothing.
        """
        needed = {(name, position) for position, each in enumerate(objects) for name in _needs(each, objects)}
        missing = self._missing({name for name, _ in needed})
        new = {position for name, position in needed if name in missing}
        existing = [each for position, each in enumerate(objects) if position not in new]
        result = self._run("diff", "--filename=-", stdin=existing)
        return checked(result, fine=(0, 1) if result.stdout else (0,)) + "".join(
            _all_new(objects[position]) for position in sorted(new)
        )

    def apply(self, objects: Sequence[Object]) -> Iterator[str]:
        """Apply objects, the custom resource definitions first: kubectl rejects objects of a kind that is not served yet.

        It applies those that it can, and yields a line for each.
        """
        definitions = [each for each in objects if each["kind"] == DEFINITION]
        names = [_name_of(each) for each in definitions]
        if definitions:
            yield from self._apply(definitions)
            established = ("--for=condition=Established", f"--timeout={SLOWEST_DEFINITION}s")
            checked(self._run("wait", *established, *names))
        yield from self._apply([each for each in objects if each["kind"] != DEFINITION])

    def _apply(self, objects: Sequence[Object]) -> Iterator[str]:
        result = self._run("apply", "--filename=-", stdin=objects)
        yield result.stdout
        checked(result)

    def _missing(self, names: set[str]) -> set[str]:
        """Find the objects, each KIND/NAME, that do not exist in the cluster."""
        output = checked(self._run("get", *sorted(names), "--ignore-not-found", "--output=name"))
        return names - set(output.split())

    def _run(self, *arguments: str, stdin: Sequence[Object] = ()) -> CompletedProcess[str]:
        return run(self.program, [*arguments, *self.options], "---\n".join(map(dump, stdin)))


def _needs(each: Object, objects: Sequence[Object]) -> Iterator[str]:
    """Name the prerequisites of an object: its namespace, and its definition if that is among the objects."""
    if namespace := each["metadata"].get("namespace"):
        yield f"namespace/{namespace}"
    group = each["apiVersion"].rpartition("/")[0]
    for one in objects:
        if one["kind"] == DEFINITION and (one["spec"]["group"], one["spec"]["names"]["kind"]) == (group, each["kind"]):
            yield _name_of(one)


def _name_of(definition: Object) -> str:
    return f"customresourcedefinition.apiextensions.k8s.io/{definition['metadata']['name']}"


def _all_new(each: Object) -> str:
    metadata = each["metadata"]
    names = [each["apiVersion"].replace("/", "."), each["kind"], metadata.get("namespace", ""), metadata["name"]]
    lines = dump(each).splitlines(keepends=True)
    return "".join(difflib.unified_diff([], lines, "/dev/null", ".".join(names)))

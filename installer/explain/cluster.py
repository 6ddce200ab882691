"""What `install-cni explain` and `trace` ask a cluster, with the credentials of whoever calls them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from installer.manifestfile import Found
from installer.podspecs import PodManifest
from installer.status.access import Access, Source, UnreachableError
from installer.status.model import Unasked, Why
from plugin.pod import ManifestError, Pod

if TYPE_CHECKING:
    from pathlib import Path


def ask(kubeconfig: Path | None, context: str | None, namespace: str, name: str) -> Found:
    """Ask for a pod.

    Args:
        kubeconfig: as `Access` takes it.
        context: the same.
        namespace: the pod's.
        name: the pod's.

    Raises:
        click.ClickException: with what was seen, what was expected and what to do.
    """
    try:
        return _pod(Access(kubeconfig, context), namespace, name)
    except (UnreachableError, ManifestError) as error:
        raise click.ClickException(str(error)) from error


def _pod(access: Access, namespace: str, name: str) -> Found:
    got = access.got(Source("pods", f"/api/v1/namespaces/{namespace}/pods/{name}", {}, False, namespace))
    if not isinstance(got, Unasked):
        return Found(PodManifest(got, "Pod"), Pod.from_manifest(got))
    if got.why is Why.NO_DEFINITION:
        raise click.ClickException(f"the cluster has no pod {namespace}/{name}")
    expected = f", expected the right to get pods in namespace {namespace}" if got.why is Why.FORBIDDEN else ""
    raise click.ClickException(f"pod {namespace}/{name}: {got.message}{expected}")

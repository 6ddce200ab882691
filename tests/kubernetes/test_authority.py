"""The authority that the API server's certificate is held against, when it is replaced while the agent runs."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from installer.kube.api_error import ApiError
from installer.kube.client import ApiClient

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.cluster import Cluster

pytestmark = pytest.mark.apiserver


def another_authority(folder: Path) -> Path:
    """Make a certificate that no API server here has."""
    path = folder / "other.crt"
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj=/CN=other",
    ]
    subprocess.run([*made, "-keyout", str(folder / "other.key"), "-out", str(path)], check=True, capture_output=True)
    return path


def held_against(authority: Path, cluster: Cluster, kubeconfig: Path, folder: Path) -> Path:
    """Write a kubeconfig that has its authority from this file."""
    made = folder / "kubeconfig"
    made.write_text(kubeconfig.read_text().replace(str(cluster.certificate), str(authority)))
    return made


async def test_a_replaced_certificate_authority_is_read_again(
    cluster: Cluster, kubeconfig: Path, tmp_path: Path
) -> None:
    authority = tmp_path / "ca.crt"
    shutil.copy(another_authority(tmp_path), authority)
    api = ApiClient(held_against(authority, cluster, kubeconfig, tmp_path))
    try:
        with pytest.raises(ApiError, match="certificate verify failed"):
            await api.get("/api/v1/pods")
        shutil.copy(cluster.certificate, authority)
        assert await api.get("/api/v1/pods")
    finally:
        await api.close()

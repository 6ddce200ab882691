"""How the agent reaches the API server: from the pod that it runs in, or by a kubeconfig."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from installer.kube import credentials as module
from installer.kube.credentials import CredentialsError, credentials

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.pure


def kubeconfig(folder: Path, *, user: dict[str, Any], **changed: Any) -> Path:
    """A kubeconfig with one context."""
    config = {
        "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1:6443", "certificate-authority": "ca.crt"}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    } | changed
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config))
    return path


@pytest.fixture
def service_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the kubelet mounts into a pod, and sets in its environment."""
    (tmp_path / "token").write_text("first\n")
    (tmp_path / "ca.crt").write_text("")
    monkeypatch.setattr(module, "SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    return tmp_path


def test_service_account_credentials_use_the_environments_address_and_reread_the_token(service_account: Path) -> None:
    info = credentials(None)
    assert (info.server, info.token, info.ca_path) == (
        "https://[fd00::1]:443",
        "first",
        str(service_account / "ca.crt"),
    )
    (service_account / "token").write_text("second")
    assert credentials(None).token == "second"  # noqa: S105 - not one


def test_outside_a_cluster_the_error_names_the_options(service_account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    with pytest.raises(CredentialsError, match=r"no KUBERNETES_SERVICE_HOST .* give --kubeconfig FILE, or --pods-from"):
        credentials(None)


def test_a_missing_token_is_named_by_its_file(service_account: Path) -> None:
    (service_account / "token").unlink()
    with pytest.raises(CredentialsError, match="/token: No such file or directory"):
        credentials(None)


def test_paths_in_a_kubeconfig_are_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n")
    info = credentials(kubeconfig(tmp_path, user={"tokenFile": "token", "client-certificate": "/etc/me.crt"}))
    assert info.token == "from-file"  # noqa: S105 - not one
    assert info.ca_path == str(tmp_path / "ca.crt")
    assert info.certificate_path == "/etc/me.crt"


def test_data_in_a_kubeconfig_wins_over_files(tmp_path: Path) -> None:
    data = base64.b64encode(b"pem").decode()
    info = credentials(kubeconfig(tmp_path, user={"client-key": "k", "client-key-data": data, "token": "t"}))
    assert (info.private_key_path, info.private_key_data, info.token) == (None, data, "t")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"current-context": "y"}, "KeyError: 'y', expected a kubeconfig with a current-context"),
        ({"clusters": []}, "KeyError: 'c'"),
        ({"users": None}, "TypeError"),
        (
            {"users": [{"name": "u", "user": {"exec": {"command": "aws"}}}]},
            "user u logs in with exec, expected a token",
        ),
    ],
)
def test_an_incomplete_kubeconfig_is_refused_with_what_it_lacks(
    tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    path = kubeconfig(tmp_path, user={}, **changed)
    with pytest.raises(CredentialsError, match=f"{path}: ") as caught:
        credentials(path)
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["", "[", "\x00", "just text", "- 1"])
def test_a_file_that_is_no_kubeconfig_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(CredentialsError, match=f"{path}: .*expected a kubeconfig"):
        credentials(path)

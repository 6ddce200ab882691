"""`install-cni status` at a real API server."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
import yaml

from installer.status import access as asked
from installer.status.access import Access
from installer.status.collect import read_answers
from tests.documents.test_reader import MERGES
from tests.status.conftest import COMMAND, CRDS, environment
from tests.status.objects import NAMESPACE, istios_daemonset
from tests.status.test_istio_agent import IMAGE as ISTIOS_IMAGE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.status.conftest import World

pytestmark = pytest.mark.apiserver

NOBODYS = "nobody's"  # token


def test_a_cluster_without_agents_is_not_installed(empty: World) -> None:
    done = empty.status()
    assert done.returncode == 1
    assert done.stdout.startswith("Not installed: the cluster has no node agents.\n")


def test_a_cluster_without_problems_is_healthy(world: World) -> None:
    done = world.status()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Healthy: 2 nodes redirect pods by the chart's settings.\n")
    assert "node-1   Ready" in done.stdout


def test_nodes_without_daemonsets_are_not_reported(world: World) -> None:
    kinds = {"eks.amazonaws.com/compute-type": "fargate", "type": "virtual-kubelet"}
    for number, (key, value) in enumerate(kinds.items()):
        labels = {"kubernetes.io/os": "linux", key: value}
        world.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"without-{number}", "labels": labels}})
    assert world.status().returncode == 1
    left_out = [{"key": key, "operator": "NotIn", "values": [value]} for key, value in kinds.items()]
    required = {"nodeSelectorTerms": [{"matchExpressions": left_out}]}
    world.add_daemonset(2, affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}})
    generation = {"observedGeneration": 2}
    world.patch_status("daemonset", "istio-cni-node", generation)
    for name in ("node-1", "node-2"):
        world.cluster.kubectl(
            "label",
            "pod",
            f"istio-cni-node-{name}",
            "pod-template-generation=2",
            "--overwrite",
            f"--namespace={NAMESPACE}",
        )
    done = world.status()
    assert (done.returncode, done.stderr) == (0, "")
    assert "without" not in done.stdout


def test_a_pipe_gets_no_control_characters(world: World) -> None:
    world.report("node-1", ready="False", reason="Odd", message="bell \a, clear \x1b[2J, line\nbreak")
    done = world.status(TERM="xterm-256color", COLUMNS="40")
    assert done.returncode == 1
    assert all(each.isprintable() for each in done.stdout.replace("\n", ""))
    assert r"Odd: bell \x07, clear \x1b[2J, line break" in done.stdout


def test_json_and_yaml_output_parse(world: World) -> None:
    one, other = world.status("-o", "json"), world.status("-o", "yaml")
    assert json.loads(one.stdout) == yaml.safe_load(other.stdout)
    assert [each["name"] for each in json.loads(one.stdout)["nodes"]] == ["node-1", "node-2"]
    assert json.loads(one.stdout)["nodes"][0]["pod"] == "istio-cni-node-node-1"


def test_pod_reason_and_missing_agent_are_shown(world: World) -> None:
    world.pod_is("node-1", ready=False, waiting="ImagePullBackOff")
    world.cluster.kubectl(
        "delete", "pod", "istio-cni-node-node-2", f"--namespace={NAMESPACE}", "--grace-period=0", "--force"
    )
    read = json.loads(world.status("-o", "json").stdout)
    assert [(each["name"], each["state"], each["reason"]) for each in read["nodes"]] == [
        ("node-1", "Failed", "ImagePullBackOff"),
        ("node-2", "Updating", "NoAgent"),  # the node is new
    ]


def test_a_changed_template_marks_its_pods_as_outdated(world: World) -> None:
    patch = json.dumps({"spec": {"template": {"metadata": {"annotations": {"a": "b"}}}}})
    world.cluster.kubectl("patch", "daemonset", "istio-cni-node", f"--namespace={NAMESPACE}", f"--patch={patch}")
    read = json.loads(world.status("-o", "json").stdout)
    assert {each["reason"] for each in read["nodes"]} == {"WaitingForUpdate"}
    assert read["progress"] == {"kind": "Rollout", "done": 0, "total": 2}


def test_active_resource_and_settings_in_force_are_shown(world: World) -> None:
    kind = {"apiVersion": "install.istio.io/v1alpha2", "kind": "IstioControlPlane"}
    world.apply({**kind, "metadata": {"name": "istio", "namespace": NAMESPACE}, "spec": {"cni": {"enabled": True}}})
    read = json.loads(world.status("-o", "json").stdout)
    (plane,) = read["controlPlanes"]
    assert (plane["active"], plane["observedGeneration"]) == (True, 0)
    assert {each["reason"] for each in read["nodes"]} == {"OutdatedSettings"}
    assert any("no Deployment istio-cni-controller" in each["message"] for each in read["findings"])
    for name in ("node-1", "node-2"):
        in_force = {"namespace": NAMESPACE, "name": "istio", "uid": plane["uid"], "generation": 1}
        world.report(name, controlPlane=in_force)
    read = json.loads(world.status("-o", "json").stdout)
    assert {each["state"] for each in read["nodes"]} == {"Ready"}


def test_paginated_lists_are_read_completely(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked, "PAGE", 1)
    got = read_answers(Access(world.kubeconfig, None), None)
    for part in (got.nodes, got.reports, got.pods):
        assert isinstance(part, list)
        assert [each["metadata"]["name"].removeprefix("istio-cni-node-") for each in part] == ["node-1", "node-2"]


def test_the_command_for_missing_rights_grants_them(world: World) -> None:
    world.cluster.service_account("default", "viewer")
    viewer = world.cluster.kubeconfig("viewer", token=world.cluster.token("default", "viewer"))
    done = world.status(kubeconfig=viewer)
    assert done.returncode == 2, done.stdout
    assert "Unknown: " in done.stdout
    (command,) = [each for each in done.stdout.splitlines() if each.startswith("    kubectl ")]
    for part in command.split("&&"):
        _, *arguments = shlex.split(part)
        world.cluster.kubectl(*arguments)
    done = world.status(kubeconfig=viewer)
    assert (done.returncode, done.stdout.partition(":")[0]) == (0, "Healthy"), done.stdout


def test_missing_definitions_are_named_with_the_remedy(empty: World) -> None:
    empty.add_daemonset(0)
    empty.cluster.kubectl("delete", "--filename", str(CRDS))
    try:
        done = empty.status()
    finally:
        empty.cluster.kubectl("apply", "--server-side", "--filename", str(CRDS))
        empty.cluster.kubectl("wait", "--for=condition=Established", "crd", "--all")
    assert done.returncode == 1
    assert "does not know istiocontrolplanes.install.istio.io and istiocninodes.cni.istio.io" in done.stdout
    assert "kubectl apply --server-side --force-conflicts --filename crds/" in done.stdout


def test_given_namespace_is_the_only_one_read(world: World) -> None:
    done = world.status("-n", "default")
    assert done.returncode == 1
    assert "namespace default has no DaemonSet istio-cni-node" in done.stdout
    assert "helm" not in done.stdout
    assert world.status("-n", NAMESPACE).returncode == 0


def test_unreachable_api_server_is_a_one_line_error(world: World) -> None:
    nobody = world.cluster.kubeconfig("nobody", token=NOBODYS, port=1)
    for options in ((), ("-w",), ("--wait", "--timeout", "5s")):
        done = world.status(*options, kubeconfig=nobody)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("Error: https://127.0.0.1:1 (")
        assert "Connection refused" in done.stderr
        assert done.stderr.count("\n") == 1


def test_rejected_credentials_are_a_one_line_error(world: World) -> None:
    done = world.status(kubeconfig=world.cluster.kubeconfig("stranger", token=NOBODYS))
    assert (done.returncode, done.stdout) == (2, "")
    assert "401, the credentials are refused" in done.stderr


class _LogInPage(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>log in</html>")

    def log_message(self, *_: object) -> None: ...


def test_non_kubernetes_server_is_a_one_line_error(tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _LogInPage)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    path = tmp_path / "kubeconfig"
    cluster = {"name": "it", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
    context = {"name": "it", "context": {"cluster": "it", "user": "me"}}
    path.write_text(
        json.dumps({
            "clusters": [cluster], "contexts": [context], "users": [{"name": "me", "user": {"token": "x"}}],
            "current-context": "it",
        })
    )  # fmt: skip
    try:
        for options in ((), ("-w",)):
            done = run(f"--kubeconfig={path}", *options)
            assert (done.returncode, done.stdout) == (2, "")
            assert "saw b'<html>log in</html>', expected a list of" in done.stderr
            assert done.stderr.count("\n") == 1
    finally:
        server.shutdown()
        server.server_close()


def run(*options: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment(**more))


def test_missing_credentials_are_an_error_that_names_the_options() -> None:
    done = run()
    assert done.returncode == 2
    assert "no /nonexistent/.kube/config and not in a pod, expected a kubeconfig" in done.stderr


def test_a_kubeconfig_that_expands_to_gigabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(MERGES)
    controller = [
        sys.executable,
        "-m",
        "installer",
        "controller",
        "--kubeconfig",
        str(path),
        "--namespace",
        "istio-system",
    ]
    for command in ([*COMMAND, f"--kubeconfig={path}"], controller):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment())
        assert done.returncode in (1, 2)
        assert "that stand for more" in done.stderr


def test_the_kubeconfig_is_found_as_by_kubectl(world: World, tmp_path: Path) -> None:
    assert run(KUBECONFIG=f"/nonexistent/one:{world.kubeconfig}").returncode == 0
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").write_text(world.kubeconfig.read_text())
    assert run(HOME=str(tmp_path)).returncode == 0
    assert run("--context=tests", HOME=str(tmp_path)).returncode == 0
    done = run("--context=other", HOME=str(tmp_path))
    assert done.returncode == 2
    assert "other" in done.stderr


def test_service_account_is_used_in_a_pod(world: World, tmp_path: Path) -> None:
    world.cluster.service_account("default", "inside")
    (tmp_path / "token").write_text(world.cluster.token("default", "inside"))
    (tmp_path / "ca.crt").write_text(world.cluster.certificate.read_text())
    place = "/run/secrets/kubernetes.io/serviceaccount"
    mounted = f"mount -t tmpfs none /run && mkdir -p {place} && cp {tmp_path}/* {place} && exec {shlex.join(COMMAND)}"
    service = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(world.cluster.port)}
    done = subprocess.run(
        ["/usr/bin/unshare", "--mount", "/bin/sh", "-c", mounted],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment(**service),
    )
    assert done.returncode == 2, done.stderr
    assert "--serviceaccount=default:inside" in done.stdout


def test_listed_daemonsets_distinguish_istios_from_ours(world: World) -> None:
    world.apply(istios_daemonset())
    read = json.loads(world.status("-o", "json").stdout)
    assert read["daemonSet"]["namespace"] == NAMESPACE
    (only,) = read["findings"]
    assert ISTIOS_IMAGE in only["message"]
    assert {each["state"] for each in read["nodes"]} == {"Ready"}
    watched = world.status("--wait", "--timeout=5")
    assert "Istio's own CNI node agent is installed in kube-system" in watched.stdout


def test_istio_agent_at_a_real_api_server_is_not_ours(empty: World) -> None:
    empty.apply(istios_daemonset())
    done = empty.status()
    assert done.returncode == 1
    assert done.stdout.startswith("Not installed: the cluster has no node agents of this chart.\n")
    assert "helm upgrade istio-cni charts/istio-cni --namespace kube-system" in done.stdout

"""What a file says of kinds, names, keys and values drives no terminal, and breaks out of no document."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest
import yaml

from tests.explain.test_command import install_cni

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from subprocess import CompletedProcess

pytestmark = pytest.mark.pure

# An escape sequence, its C1 form, what turns text round, the end of a line, of a quoted text, of an element.
EVIL = 'e\x1b[2J\x1b]0;t\x07\x9b31m\u202etxet\u2066\u2028\r\n"]; x -> y; "</text></svg><script>alert(1)</script>&\\'
HARMLESS = {"\n", "\t"}


def pod(**fields: object) -> dict[str, object]:
    annotations = {"sidecar.istio.io/status": "{}", f"traffic.sidecar.istio.io/{EVIL}": EVIL}
    containers = [{"name": "istio-proxy"}, {"name": f"app{EVIL}", "securityContext": {"runAsUser": 1337}}]
    metadata = {"name": f"web{EVIL}", "namespace": f"shop{EVIL}", "annotations": annotations}
    spec = {"containers": containers, "initContainers": [{"name": f"init{EVIL}"}]}
    return {"kind": "Pod", "metadata": metadata, "spec": spec} | fields


def excluded(**fields: object) -> dict[str, object]:
    annotations = {"sidecar.istio.io/status": "{}", "traffic.sidecar.istio.io/excludeInboundPorts": EVIL}
    return pod(**fields) | {"metadata": {"name": f"bad{EVIL}", "annotations": annotations}}


def is_harmless(done: CompletedProcess[str]) -> None:
    for text in (done.stdout, done.stderr):
        assert [each for each in text if not (each.isprintable() or each in HARMLESS)] == []
    assert "Traceback" not in done.stderr


OBJECTS = {
    "another kind": {"kind": f"Service{EVIL}", "metadata": {"name": f"web{EVIL}"}},
    "a list's": {"kind": f"{EVIL}List", "items": [pod(), {"kind": EVIL, "metadata": {"name": EVIL}}]},
    "no kind": {"kind": [EVIL]},
    "a template": {"kind": "Deployment", "metadata": {"name": EVIL}, "spec": {"template": EVIL}},
    "a wrong type": pod(metadata={"name": "a", "annotations": {EVIL: [EVIL]}}),
    "a wrong field": pod(spec={"containers": [EVIL]}),
    "no value": excluded(),
    "a namespace left alone": pod(
        metadata={"name": "a", "namespace": EVIL, "labels": {"sidecar.istio.io/inject": EVIL}}
    ),
}


@pytest.mark.parametrize("case", OBJECTS)
@pytest.mark.parametrize("written", [json.dumps, yaml.safe_dump], ids=["JSON", "YAML"])
def test_commands_escape_text_of_manifests(case: str, written: object) -> None:
    given = written(OBJECTS[case])  # type: ignore[operator]
    for words in (("explain",), ("trace", "a/b", "--to=10.0.0.1:80"), ("manifest", "generate", "--helm=/bin/true")):
        is_harmless(install_cni(*words, "-f", "-", given=given))


@pytest.mark.parametrize("output", ["table", "json", "yaml", "rules", "dot", "svg"])
def test_every_output_format_escapes_text_of_manifests(output: str) -> None:
    given = "\n---\n".join(map(json.dumps, (pod(), excluded())))
    done = install_cni("explain", "-f", "-", "-o", output, "--pod-ip=10.0.0.1", given=f"# two\n{given}")
    assert (done.returncode, done.stderr) == (1, "")
    is_harmless(done)
    names = [f"web{EVIL}", f"bad{EVIL}"]
    if output == "json":
        assert [each["name"] for each in json.loads(done.stdout)] == names
    elif output == "yaml":
        assert [each["name"] for each in yaml.safe_load(done.stdout)] == names
    elif output == "svg":
        tags = {each.tag.rpartition("}")[2] for each in ElementTree.fromstring(done.stdout).iter()}  # noqa: S314 - ours
        assert "script" not in tags
        assert "text" in tags
    elif output == "dot":
        assert '\\"]; x -> y; \\"' in done.stdout
        assert '"]; x' not in done.stdout.replace('\\"', "")


def test_trace_escapes_the_pods_name() -> None:
    name = f"shop{EVIL}/web{EVIL}"
    done = install_cni("trace", name, "-f", "-", "--to=10.0.0.1:80", given=json.dumps(pod()))
    assert done.returncode == 0
    is_harmless(done)
    assert "shope\\x1b[2J" in done.stdout


def test_a_file_name_is_escaped() -> None:
    for words in (
        ("explain", "-f", f"/nowhere/{EVIL}"),
        ("explain", "pod", EVIL),
        ("manifest", "generate", "--helm=/bin/true", "-f", EVIL),
    ):
        done = install_cni(*words)
        assert done.returncode == 1
        is_harmless(done)


def evil(path: str) -> tuple[int, object]:
    """Answer as an API server that somebody else has written: the pod, settings and control planes, and refusals."""
    if "/pods/" in path:
        return 200, pod() | {"status": {"podIPs": [{"ip": "10.0.0.1"}], "phase": EVIL}}
    if path.startswith("/apis/apps/v1/daemonsets"):
        names = ("IPV6", "EXCLUDE_NAMESPACES", "REDIRECT_BACKEND")
        container = {"name": "install-cni", "env": [{"name": name, "value": EVIL} for name in names]}
        ours = {"template": {"spec": {"containers": [container]}}}
        return 200, {
            "items": [{"metadata": {"name": "istio-cni-node", "namespace": "mesh"}, "spec": ours}],
            "metadata": {},
        }
    if path.startswith("/apis/install.istio.io/"):
        values = {"cni": {"excludeNamespaces": [EVIL], "hub": EVIL, "logLevel": EVIL, EVIL: EVIL}}
        metadata = {
            "name": EVIL,
            "namespace": EVIL,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "uid": EVIL,
            "generation": 1,
        }
        spec = {"cni": {"enabled": True}, "values": values}
        return 200, {"items": [{"metadata": metadata, "spec": spec}], "metadata": {"resourceVersion": EVIL}}
    return 403, {"kind": "Status", "message": EVIL, "reason": EVIL}


def refuses(_: str) -> tuple[int, object]:
    return 403, {"kind": "Status", "message": EVIL, "reason": EVIL}


def no_json(path: str) -> tuple[int, object]:
    return (200, EVIL) if "/pods/" in path else (500, EVIL)


@contextmanager
def served(answer: object, folder: Path) -> Iterator[Path]:
    """Serve such answers on loopback, and give the kubeconfig for it."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answer(self.path)  # type: ignore[operator]
            data = json.dumps(body, ensure_ascii=False).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    named = [{"name": "a", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}, "user": {"token": "t"}}]
    context = [{"name": "a", "context": {"cluster": "a", "user": "a"}}]
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(json.dumps({"current-context": "a", "contexts": context, "clusters": named, "users": named}))
    try:
        yield kubeconfig
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("answer", [evil, refuses, no_json])
def test_commands_escape_text_of_the_cluster(tmp_path: Path, answer: object) -> None:
    with served(answer, tmp_path) as kubeconfig:
        cluster = ("--kubeconfig", str(kubeconfig))
        for output in ("table", "json", "yaml", "rules", "dot", "svg") if answer is evil else ("table",):
            done = install_cni("explain", "pod", "shop/web", *cluster, "-o", output)
            is_harmless(done)
            assert done.returncode == (0 if answer is evil else 1), done.stderr
            if answer is not evil:
                continue
            if output == "svg":
                tags = {each.tag.rpartition("}")[2] for each in ElementTree.fromstring(done.stdout).iter()}  # noqa: S314 - ours
                assert ("script" in tags, "text" in tags) == (False, True)
            elif output == "dot":
                assert '"]; x' not in done.stdout.replace('\\"', "")
            elif output == "json":
                assert [each["name"] for each in json.loads(done.stdout)] == [f"web{EVIL}"]
        is_harmless(install_cni("trace", "shop/web", "--to=10.0.0.1:80", *cluster))

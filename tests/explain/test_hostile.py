"""What a file says of kinds, names, keys and values drives no terminal, and breaks out of no document."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest
import yaml

from tests.explain.test_command import install_cni

if TYPE_CHECKING:
    from subprocess import CompletedProcess

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
def test_no_command_prints_what_a_file_may_say_as_it_is(case: str, written: object) -> None:
    given = written(OBJECTS[case])  # type: ignore[operator]
    for words in (("explain",), ("trace", "a/b", "--to=10.0.0.1:80"), ("manifest", "generate", "--helm=/bin/true")):
        is_harmless(install_cni(*words, "-f", "-", given=given))


@pytest.mark.parametrize("output", ["table", "json", "yaml", "rules", "dot", "svg"])
def test_no_output_does(output: str) -> None:
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


def test_a_trace_names_the_pod_harmlessly() -> None:
    name = f"shop{EVIL}/web{EVIL}"
    done = install_cni("trace", name, "-f", "-", "--to=10.0.0.1:80", given=json.dumps(pod()))
    assert done.returncode == 0
    is_harmless(done)
    assert "shope\\x1b[2J" in done.stdout


def test_a_name_of_a_file_is_said_harmlessly() -> None:
    for words in (
        ("explain", "-f", f"/nowhere/{EVIL}"),
        ("explain", "pod", EVIL),
        ("manifest", "generate", "--helm=/bin/true", "-f", EVIL),
    ):
        done = install_cni(*words)
        assert done.returncode == 1
        is_harmless(done)

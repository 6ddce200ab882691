"""`install-cni manifest generate` by the real helm: what is asked for comes out, what is wrong is named."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from installer.manifest.command import NO_HUB
from tests.chart.helm import CHART, helm
from tests.chart.references import DIGEST, IMAGES
from tests.manifest.conftest import OF_THE_GUIDE, dumped, last
from tests.programs.lots import KUBE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.manifest.conftest import Generate, Manifest

pytestmark = pytest.mark.apiserver


def resource(spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    own = {"apiVersion": "install.istio.io/v1alpha2", "kind": "IstioControlPlane", "spec": spec}
    return own | ({"metadata": metadata} if metadata else {})


def test_the_guides_manifest_takes_effect_and_comes_last(generate: Generate, written: Path) -> None:
    made = generate("-f", str(written))
    assert made.settings["EXCLUDE_NAMESPACES"] == "istio-system,kube-system,foo_ns,bar_ns"
    assert made.settings["LOG_LEVEL"] == "info"
    spec = last(made)["spec"]
    assert spec["values"]["cni"]["excludeNamespaces"] == ["istio-system", "kube-system", "foo_ns", "bar_ns"]
    assert last(made)["metadata"] == {"name": "istio-cni", "namespace": "istio-system"}


def test_the_objects_are_the_charts_byte_for_byte(manifest: Manifest, tmp_path: Path) -> None:
    options = ("--namespace=mesh", "--include-crds", "--no-hooks")
    by_helm = helm(
        "template", "istio-cni", str(CHART), *options, values={"cni": {"tag": 5, "hub": "a.example/b"}}, home=tmp_path
    )
    assert by_helm.returncode == 0, by_helm.stderr
    ours = manifest("generate", "--set=tag=5", "--set=hub=a.example/b", "--namespace=mesh")
    assert ours.stdout.startswith(by_helm.stdout)
    assert ours.stdout.removeprefix(by_helm.stdout).startswith("---\napiVersion: install.istio.io/v1alpha2\n")
    assert ours.stderr == ""


def test_an_image_is_pinned_by_its_digest_and_a_wrong_digest_is_named(generate: Generate, manifest: Manifest) -> None:
    for hub, tag in (("h", f"1.4.0@{DIGEST}"), ("h/", f"@{DIGEST}")):
        made = generate(f"--set=hub={hub},tag={tag}")
        assert made.container["image"] == IMAGES[hub, tag]
        assert last(made)["spec"] == {"hub": hub, "tag": tag}
        assert generate("-f", "-", stdin=dumped(last(made))).objects == made.objects
    done = manifest("generate", f"--set=tag=@{DIGEST.upper()}")
    assert done.returncode != 0
    assert "spec.tag: saw '@SHA256:" in done.stderr
    assert "expected a tag, @sha256: and 64 lowercase hexadecimal digits, or both" in done.stderr


def test_helm_hooks_are_left_out(manifest: Manifest) -> None:
    assert "helm.sh/hook" not in manifest("generate").stdout


def test_objects_come_in_the_order_of_their_dependencies(generate: Generate) -> None:
    kinds = [each["kind"] for each in generate("--create-namespace").objects]
    order = [
        "Namespace",
        "CustomResourceDefinition",
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "DaemonSet",
    ]
    places = [kinds.index(kind) for kind in order]
    assert places == sorted(places)
    assert kinds[-1] == "IstioControlPlane"


def test_settings_of_the_2019_guide_parse(generate: Generate) -> None:
    made = generate(
        "--set", "cni.enabled=true", "--set", "cni.components.cni.namespace=kube-system",
        "--set", "values.cni.cniBinDir=/var/lib/cni/bin", "--set", "values.cni.cniConfDir=/var/run/multus/cni/net.d",
    )  # fmt: skip
    paths = {each["name"]: each["hostPath"]["path"] for each in made.pod["volumes"]}
    assert paths["cni-bin-dir"] == "/var/lib/cni/bin"
    assert paths["cni-conf-dir"] == "/var/run/multus/cni/net.d"
    assert made["DaemonSet"]["metadata"]["namespace"] == "kube-system"
    assert last(made)["spec"]["cni"] == {"enabled": True, "components": {"cni": {"namespace": "kube-system"}}}


def test_set_accepts_a_value_without_a_path_and_the_platform(generate: Generate) -> None:
    made = generate("--set", "cniBinDir=/home/kubernetes/bin,platform=openshift-4")
    paths = {each["name"]: each["hostPath"]["path"] for each in made.pod["volumes"]}
    assert paths["cni-bin-dir"] == "/home/kubernetes/bin"
    assert paths["cni-conf-dir"] == "/etc/cni/multus/net.d", "the platform's"
    assert last(made)["spec"] == {"platform": "openshift-4", "values": {"cni": {"cniBinDir": "/home/kubernetes/bin"}}}
    assert made["DaemonSet"]["metadata"]["namespace"] == "kube-system", "the platform's"
    assert last(made)["metadata"]["namespace"] == "istio-system"


def test_platform_reaches_the_chart_and_stays_in_the_resource(generate: Generate) -> None:
    made = generate("--platform=gke", "--set=platform=k3s")
    paths = {each["name"]: each["hostPath"]["path"] for each in made.pod["volumes"]}
    assert paths["cni-bin-dir"] == "/home/kubernetes/bin"
    assert generate("-f", "-", stdin=dumped(last(made))).objects == made.objects


def test_create_namespace_adds_all_but_the_default_namespaces(generate: Generate) -> None:
    own = [
        each["metadata"]["name"]
        for each in generate("--create-namespace", "--set=cni.components.cni.namespace=kube-system").objects
        if each["kind"] == "Namespace"
    ]
    assert own == ["istio-system"]


def test_set_has_helms_lists_nesting_escapes_and_types(generate: Generate) -> None:
    made = generate(
        "--set", r"values.cni.excludeNamespaces={a,b},values.cni.podAnnotations.a\.b/c=d\,e",
        "--set-string", "values.cni.podAnnotations.scrape=true",
        "--set", "values.cni.tag=20191101,values.cni.resources=null",
        "--set", "values.cni.excludeNamespaces[2]=c",
    )  # fmt: skip
    assert last(made)["spec"] == {
        "values": {
            "cni": {
                "excludeNamespaces": ["a", "b", "c"],
                "podAnnotations": {"a.b/c": "d,e", "scrape": "true"},
                "tag": 20191101,
            }
        }
    }
    assert made.settings["EXCLUDE_NAMESPACES"] == "a,b,c"
    assert made.container["image"] == "install-cni:20191101"


def test_later_files_and_set_override_earlier_files(generate: Generate, written: Path, tmp_path: Path) -> None:
    over = tmp_path / "over.yaml"
    over.write_text(
        dumped(
            resource(
                {"hub": "registry.example", "values": {"cni": {"excludeNamespaces": ["x"]}}},
                name="own",
                namespace="mesh",
            )
        )
    )
    stdin = dumped(resource({"unvalidatedValues": {"cni": {"logLevel": None}}}))
    files = ("-f", str(written), "-f", str(over), "-f", "-")
    made = generate(*files, "--set=values.cni.excludeNamespaces[1]=y", stdin=stdin)
    assert made.settings["EXCLUDE_NAMESPACES"] == "x,y"
    assert made.settings["LOG_LEVEL"] == "warn", "null takes out what was there"
    assert made.container["image"].startswith("registry.example/install-cni:")
    assert last(made)["metadata"] == {"name": "own", "namespace": "mesh"}
    assert made["DaemonSet"]["metadata"]["namespace"] == "mesh"


def test_unvalidated_values_may_set_a_value_of_the_chart_alone(generate: Generate) -> None:
    made = generate("--set", "unvalidatedValues.cni.maxUnavailable=3")
    assert made["DaemonSet"]["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"] == 3


def test_other_documents_are_named_on_stderr(manifest: Manifest) -> None:
    done = manifest("generate", "-f", "-", stdin=f"{OF_THE_GUIDE}---\n{{kind: Namespace, metadata: {{name: foo}}}}\n")
    assert done.returncode == 0
    assert done.stderr == f"note: -: Namespace foo is omitted\nnote: {NO_HUB}\n"


@pytest.mark.parametrize(
    ("version", "policies"),
    [("1.25", 0), ("v1.29.15-eks-113cf36", 0), ("1.30", 9), ("v1.30.4-gke.1348000", 9), ("v1.35.4+k3s1", 9)],
)
def test_objects_that_the_clusters_version_lacks_are_left_out(generate: Generate, version: str, policies: int) -> None:
    made = generate(f"--kube-version={version}")
    assert [each["kind"] for each in made.objects].count("ValidatingAdmissionPolicy") == policies


@pytest.mark.parametrize("version", ["", "1", "1.x", "30", "1.30+", "latest", "1.30.4.5", "1.30\n"])
def test_an_invalid_version_is_refused_with_an_example(manifest: Manifest, version: str) -> None:
    done = manifest("generate", f"--kube-version={version}")
    assert (done.returncode, done.stdout) == (2, "")
    said = f"Invalid value for '--kube-version': saw {version!r}, expected a version of Kubernetes, such as 1.30 or "
    assert said in done.stderr


def test_a_version_older_than_the_chart_supports_is_refused(manifest: Manifest) -> None:
    done = manifest("generate", "--kube-version=1.24")
    assert (done.returncode, done.stdout) == (1, "")
    assert "chart requires kubeVersion: >= 1.25.0-0 which is incompatible with Kubernetes v1.24.0" in done.stderr


def test_enabled_false_generates_the_resource_and_its_definition_alone(manifest: Manifest, generate: Generate) -> None:
    off = ("--set=cni.enabled=false", "--namespace=mesh")
    made = generate(*off)
    assert [each["kind"] for each in made.objects] == ["CustomResourceDefinition", "IstioControlPlane"]
    assert made.objects[0] in generate("--namespace=mesh").objects
    assert last(made)["spec"] == {"cni": {"enabled": False}}
    assert generate(*off, "--create-namespace").objects[0]["metadata"] == {"name": "mesh"}
    (note,) = manifest("generate", *off).stderr.splitlines()
    assert note.startswith("note: spec.cni.enabled is false: ")


def test_errors_are_reported_also_with_enabled_false(manifest: Manifest) -> None:
    done = manifest("generate", "--set=cni.enabled=false", "--platform=gkee")
    assert (done.returncode, done.stdout) == (1, "")
    assert "at '/platform': value must be one of " in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set=values.cni.logLevl=x"], "spec.values.cni.logLevl: no such value; is logLevel meant?"),
        (["--set=values.cni.cniBinDir=opt"], "spec.values.cni.cniBinDir: saw 'opt', expected "),
        (["--set=cni"], 'helm: failed parsing --set data: key "cni" has no value'),
        (["--platform=gkee"], "at '/platform': value must be one of "),
        (["--set=unvalidatedValues.cni.maxUnavailable=0"], "at '/cni/maxUnavailable'"),
        (["-f", "/nowhere.yaml"], "/nowhere.yaml: No such file or directory"),
        (["-f", "-"], "-: saw nothing, expected one IstioControlPlane"),
        (["--chart=/tmp"], "--chart /tmp: saw no values.schema.json there"),
        (["--helm=/nowhere/helm"], "--helm /nowhere/helm: no such program"),
    ],
)
def test_errors_are_reported_and_nothing_is_written(manifest: Manifest, arguments: list[str], said: str) -> None:
    done = manifest("generate", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert done.stderr.startswith("Error: ")
    assert "Traceback" not in done.stderr


def test_without_helm_the_error_says_what_to_do(manifest: Manifest, tmp_path: Path) -> None:
    done = manifest("generate", PATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == "Error: there is no helm on PATH; install it, or name its file: --helm FILE\n"


def test_helm_comes_from_the_option_or_the_variable(manifest: Manifest, tmp_path: Path) -> None:
    program = str(KUBE.folder / "helm")
    assert manifest("generate", f"--helm={program}", PATH=str(tmp_path)).returncode == 0
    assert manifest("generate", HELM=program, PATH=str(tmp_path)).returncode == 0


def test_helm_of_the_current_folder_is_not_run(manifest: Manifest) -> None:
    done = manifest("generate", PATH=os.path.relpath(KUBE.folder))
    assert done.returncode == 1
    assert "in a PATH relative to the current folder; name its file: --helm FILE" in done.stderr

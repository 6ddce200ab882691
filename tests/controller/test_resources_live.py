"""More than one resource, wrong ones, and what reaches the DaemonSet of them, on a real API server."""

from __future__ import annotations

import json
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from installer.config.control_plane import GROUP, KIND, PLURAL, VERSION
from installer.controller.pod_template import RESOURCE_VALUES
from installer.kube.names import DAEMONSET
from tests.chart.references import DIGEST
from tests.controller.stage import NAMESPACE, SOON, now
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.controller.conftest import Run
    from tests.controller.stage import Controller, Stage

pytestmark = pytest.mark.apiserver


def container(stage: Stage) -> dict[str, Any]:
    found: dict[str, Any] = stage.daemonset()["spec"]["template"]["spec"]["containers"][0]
    return found


def reconciliations(controller: Controller) -> float:
    lines = controller.get("/metrics")[1].splitlines()
    return float(next(each for each in lines if "reconciliations_total " in each and "#" not in each).split()[1])


def renew_agent(stage: Stage, node: str) -> None:
    """Replace a node's agent, as the DaemonSet's controller does."""
    stage.end_agent(node)
    stage.add_agent(node)


def test_the_younger_of_two_is_superseded_until_the_older_goes(stage: Stage, controller: Run) -> None:
    stage.add_node("node1")
    stage.add_agent("node1")
    with controller():
        older = stage.apply({"values": {"cni": {"tag": "1"}}}, "older")
        stage.report("node1", older)
        stage.becomes("UPDATING", "older")
        renew_agent(stage, "node1")
        stage.becomes("HEALTHY", "older")
        until(lambda: stage.resource("older")["metadata"]["creationTimestamp"] < now(), SOON, "a second is over")
        stage.apply({"values": {"cni": {"tag": "2"}}}, "younger")
        said = stage.becomes("ERROR", "younger")
        assert "IstioControlPlane mesh/older takes precedence, as it is older" in said["error"]
        assert stage.condition("Reconciled", "younger") == ("False", "Superseded")
        assert container(stage)["image"] == "registry.example/mesh/install-cni:1"
        assert stage.cni("older")["status"] == "HEALTHY"
        assert [reason for reason, _ in stage.events("younger")] == ["Superseded"]

        stage.delete("older")
        until(lambda: stage.is_gone("older"), SOON, "the older is gone, without an uninstall")
        until(lambda: container(stage)["image"].endswith(":2"), SOON, "the younger is rolled out")
        assert "nodeSelector" in stage.daemonset()["spec"]["template"]["spec"]
        assert "cni.istio.io/parked" not in stage.daemonset()["spec"]["template"]["spec"]["nodeSelector"]
        stage.becomes("UPDATING", "younger")


def test_invalid_resource_is_reported_with_every_path_and_changes_nothing(stage: Stage, controller: Run) -> None:
    stage.add_node("node1")
    stage.add_agent("node1")
    with controller():
        stage.report("node1", stage.apply({"values": {"cni": {"tag": "good"}}}))
        stage.becomes("UPDATING")
        renew_agent(stage, "node1")
        stage.becomes("HEALTHY")
        before = stage.daemonset()["metadata"]["generation"]
        stage.apply({"values": {"cni": {"tag": "bad", "tagg": "x"}}, "unvalidatedValues": {"cni": {"logLevel": 3}}})
        said = stage.becomes("ERROR")
        assert "spec.values.cni.tagg: no such value; is tag meant?" in said["error"]
        assert "spec.unvalidatedValues.cni.logLevel: saw 3, expected a string" in said["error"]
        assert "keep the last good settings" in said["statusString"]
        assert stage.condition("Reconciled") == ("False", "Invalid")
        assert stage.nodes().get("ready") == 1, "the node goes on with the settings that it has"
        assert stage.daemonset()["metadata"]["generation"] == before
        assert container(stage)["image"].endswith(":good")
        until(lambda: stage.events("mesh")[-1][0] == "InvalidSettings", SOON, "an Event tells of it")
        stage.apply({"values": {"cni": {"tag": "good"}}})
        stage.becomes("UPDATING")
        stage.report("node1", stage.resource())
        stage.becomes("HEALTHY")


def test_unknown_unvalidated_name_is_a_note_and_not_an_error(stage: Stage, controller: Run) -> None:
    stage.add_node("node1")
    stage.add_agent("node1")
    with controller():
        said = "spec.unvalidatedValues.cni.logLevle has no effect: no such value; is logLevel meant?"
        stage.report("node1", stage.apply({"unvalidatedValues": {"cni": {"logLevle": "info"}}}))
        assert stage.becomes("HEALTHY") == {
            "status": "HEALTHY",
            "statusString": f"1 of 1 nodes redirect pods with these settings; {said}",
            "error": "",
            "version": "0.1.0",
        }
        assert stage.condition("Reconciled") == ("True", "Applied")
        until(
            lambda: dict(stage.events("mesh")).get("RolloutCompleted", "").endswith(said), SOON, "an Event says it, too"
        )
        stage.report("node1", stage.apply({"unvalidatedValues": {"cni": {"logLevel": "info"}}}))
        until(lambda: "no effect" not in stage.cni()["statusString"], SOON, "it is no longer said")


def test_a_resource_as_deep_as_the_api_server_takes_stops_nothing(stage: Stage, controller: Run) -> None:
    stage.add_node("node1")
    stage.add_agent("node1")
    values = '{"a":' * 9_900 + "{}" + "}" * 9_900
    deep = f'"metadata":{{"name":"deep","namespace":"default"}},"spec":{{"unvalidatedValues":{{"other":{values}}}}}'
    applied = stage.apply({})
    stage.cluster.kubectl("create", "--filename=-", text=f'{{"apiVersion":"{GROUP}/{VERSION}","kind":"{KIND}",{deep}}}')
    with controller():
        try:
            stage.report("node1", applied)
            stage.becomes("HEALTHY")
            told = partial(stage.cluster.kubectl, "get", "icp", "deep", "--output=jsonpath={.status.status.cni.error}")
            until(lambda: "takes precedence, as it is older" in told(), SOON, "its own status is written")
        finally:
            stage.cluster.kubectl("delete", "icp", "deep")


def test_a_refused_status_holds_up_no_other(stage: Stage, controller: Run) -> None:
    with statuses_refused(stage, "default"):
        stage.add_node("node1")
        stage.add_agent("node1")
        applied = stage.apply({})
        until(lambda: applied["metadata"]["creationTimestamp"] < now(), SOON, "a second is over")
        stage.apply({}, "refused", "default")  # which comes first in a list
        with controller() as made:
            stage.report("node1", applied)
            stage.becomes("HEALTHY")
            assert stage.resource("refused", "default").get("status", {}) == {}
            assert "the API server refused: status" in made.log.read_text()
            stage.end_agent("node1")
            until(lambda: stage.ready("node1")[0] == "False", SOON, "nodes without an agent are reported, too")


@contextmanager
def statuses_refused(stage: Stage, namespace: str) -> Iterator[None]:
    """Have the API server refuse every status of an IstioControlPlane in a namespace, as a policy of its owner may."""
    group, name = "admissionregistration.k8s.io/v1", {"name": "refuses-status"}
    rule = {"apiGroups": [GROUP], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": [f"{PLURAL}/status"]}
    policy = {
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": f"request.namespace != '{namespace}'"}],
    }
    binding = {"policyName": "refuses-status", "validationActions": ["Deny"]}
    kinds = {"ValidatingAdmissionPolicy": policy, "ValidatingAdmissionPolicyBinding": binding}
    objects = [{"apiVersion": group, "kind": kind, "metadata": name, "spec": spec} for kind, spec in kinds.items()]
    stage.apply({}, "probe", namespace)
    path = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}/probe/status?dryRun=All"
    try:
        stage.cluster.admin.apply(*objects)
        until(lambda: _is_refused(stage, path), SOON, "the policy is in force")
        stage.delete("probe", namespace)
        yield
    finally:
        for each in objects:
            stage.cluster.admin.delete(stage.cluster.admin.path(each))
        until(lambda: not stage.cluster.admin.read(stage.cluster.admin.path(objects[0])), SOON, "the policy is gone")


def _is_refused(stage: Stage, path: str) -> bool:
    try:
        stage.cluster.admin.merge(path, {"status": {"observedGeneration": 1}})
    except AssertionError:
        return True
    return False


def test_another_agent_namespace_is_rejected_with_a_remedy(stage: Stage, controller: Run) -> None:
    with controller():
        stage.apply({"cni": {"components": {"cni": {"namespace": "kube-system"}}}})
        said = stage.becomes("ERROR")
    assert "spec.cni.components.cni.namespace: saw kube-system, expected mesh" in said["error"]
    assert "helm upgrade --set cni.namespace=kube-system" in said["error"]
    assert stage.condition("Reconciled") == ("False", "WrongNamespace")


def test_pod_values_override_the_charts_until_they_are_removed(empty_stage: Stage, controller: Run) -> None:
    stage = empty_stage
    allowed = {"allowedHubs": ["other.example/x"], "allowedDirectories": ["/conf"]}
    stage.install_chart({"podAnnotations": {"of": "chart"}, "tag": "0", "controller": allowed})
    with controller():
        stage.apply(
            {
                "hub": "other.example/x/",
                "values": {
                    "cni": {
                        "tag": 7,
                        "pullPolicy": "IfNotPresent",
                        "cniBinDir": "/bin/of/cni",
                        "cniConfDir": "/conf",
                        "podAnnotations": {"more": "1"},
                        "resources": {"limits": {"memory": "200Mi"}},
                    }
                },
            }
        )
        until(lambda: container(stage)["image"] == "other.example/x/install-cni:7", SOON, "it is rolled out")
        seen = stage.daemonset()
        template, only = seen["spec"]["template"], container(stage)
        assert only["imagePullPolicy"] == "IfNotPresent"
        assert only["resources"] == {"limits": {"memory": "200Mi"}, "requests": {"cpu": "20m", "memory": "80Mi"}}
        env = {each["name"]: each.get("value") for each in only["env"]}
        assert (env["CNI_BIN_DIR"], env["CNI_CONF_DIR"]) == ("/bin/of/cni", "/conf")
        paths = {each["name"]: each["hostPath"] for each in template["spec"]["volumes"]}
        assert paths["cni-bin-dir"] == {"path": "/bin/of/cni", "type": "Directory"}
        assert paths["cni-conf-dir"] == {"path": "/conf", "type": "Directory"}
        assert template["metadata"]["annotations"].items() >= {"of": "chart", "more": "1"}.items()
        assert json.loads(seen["metadata"]["annotations"][RESOURCE_VALUES])["tag"] == "7"
        (ours,) = [each for each in seen["metadata"]["managedFields"] if each["manager"] == "istio-cni-controller"]
        assert ours["operation"] == "Apply"

        stage.cluster.kubectl(
            "set", "image", "daemonset/istio-cni-node", "install-cni=of.somebody", f"--namespace={NAMESPACE}"
        )
        until(lambda: container(stage)["image"] == "other.example/x/install-cni:7", SOON, "it is put back")

        stage.apply({})
        until(lambda: container(stage)["image"] == "registry.example/mesh/install-cni:0", SOON, "the chart's is back")
        template = stage.daemonset()["spec"]["template"]
        assert "limits" not in container(stage)["resources"]
        assert "more" not in template["metadata"]["annotations"]
        assert template["metadata"]["annotations"]["of"] == "chart"
        assert template["spec"]["volumes"][0]["hostPath"]["path"] == "/opt/cni/bin"


def test_an_image_by_digest_is_rolled_out_and_a_wrong_digest_is_not(stage: Stage, controller: Run) -> None:
    pinned = "registry.example/mesh/install-cni:2@" + DIGEST
    with controller():
        stage.apply({"values": {"cni": {"tag": f"@{DIGEST}"}}})
        until(lambda: container(stage)["image"] == pinned.replace(":2@", "@"), SOON, "that of the digest is rolled out")
        stage.apply({"values": {"cni": {"tag": f"2@{DIGEST}"}}})
        until(lambda: container(stage)["image"] == pinned, SOON, "that of tag and digest is rolled out")
        assert stage.becomes("HEALTHY")["error"] == "", "no node is there to wait for"
        stage.apply({"unvalidatedValues": {"cni": {"tag": f"2@{DIGEST.upper()}"}}})
        said = stage.becomes("ERROR")["error"]
        assert "spec.unvalidatedValues.cni.tag: saw '2@SHA256:" in said
        assert "64 lowercase hexadecimal digits" in said
        assert container(stage)["image"] == pinned, "the last good settings stay in force"


NOT_ALLOWED = {
    "hub": ({"hub": "other.example/x"}, "saw image other.example/x/install-cni:0.1.0", "cni.controller.allowedHubs"),
    "directory": ({"cniBinDir": "/usr/bin"}, "saw directories /usr/bin", "cni.controller.allowedDirectories"),
    "annotation": (
        {"podAnnotations": {"cdi.k8s.io/x": "y"}},
        "saw annotations cdi.k8s.io/x",
        "cni.controller.allowedAnnotations",
    ),
}


@pytest.mark.parametrize("what", NOT_ALLOWED)
def test_disallowed_value_is_reported_with_a_remedy_and_the_resource_can_be_deleted(
    stage: Stage, controller: Run, what: str
) -> None:
    asked, saw, remedy = NOT_ALLOWED[what]
    before = stage.daemonset()["spec"]
    with controller():
        stage.apply({"values": {"cni": asked}})
        said = stage.becomes("ERROR")["error"]
        assert saw in said
        assert remedy in said
        assert stage.condition("Reconciled") == ("False", "RolloutFailed")
        assert stage.daemonset()["spec"] == before
        stage.apply({"values": {"cni": {"tag": "2"}}})
        until(lambda: container(stage)["image"].endswith(":2"), SOON, "what is allowed is rolled out")
        stage.apply({"values": {"cni": asked}})
        stage.becomes("ERROR")
        stage.delete()
        until(stage.is_gone, SOON, "it is gone")


def test_a_quantity_that_the_api_server_writes_otherwise_is_applied_once(stage: Stage, controller: Run) -> None:
    stage.add_node("node1")
    with controller() as running:
        stage.apply({"values": {"cni": {"resources": {"limits": {"cpu": 1, "memory": "1024Mi"}}}}})
        until(
            lambda: container(stage)["resources"].get("limits") == {"cpu": "1", "memory": "1Gi"}, SOON, "it is applied"
        )
        stage.becomes("UPDATING")
        done = len(stage.requests())
        for number in range(3):
            before = reconciliations(running)
            stage.core.patch_node("node1", {"metadata": {"labels": {"of": str(number)}}})
            until(lambda: reconciliations(running) > before, SOON, "it has looked again")  # noqa: B023
        assert [each for each in stage.writes(done) if "daemonsets" in each] == []


def test_refused_write_delays_neither_status_nor_uninstall(stage: Stage, controller: Run) -> None:
    with controller(deadline=2):
        stage.apply({"values": {"cni": {"podAnnotations": {"not a key": "x"}}}})
        said = stage.becomes("ERROR")["error"]
        assert said.startswith("cannot update the DaemonSet: ")
        assert " answered 422: DaemonSet.apps " in said
        assert "template.annotations: Invalid value" in said
        stage.delete()
        until(stage.is_gone, SOON, "the resource is gone")
        assert stage.daemonset()["spec"]["template"]["spec"]["nodeSelector"]["cni.istio.io/parked"] == "true"


def test_the_younger_resource_takes_effect_when_the_older_is_deleted(stage: Stage, controller: Run) -> None:
    stage.add_node("node1")
    stage.add_agent("node1")
    with controller():
        stage.report("node1", stage.apply({}, "older"))
        stage.becomes("HEALTHY", "older")
        until(lambda: stage.resource("older")["metadata"]["creationTimestamp"] < now(), SOON, "a second is over")
        younger = stage.apply({"values": {"cni": {"logLevel": "info"}}}, "younger")
        stage.becomes("ERROR", "younger")
        stage.delete("older")
        until(lambda: stage.is_gone("older"), SOON, "the older is gone, though the plugin is on the node")
        stage.becomes("UPDATING", "younger")
        stage.report("node1", younger)
        stage.becomes("HEALTHY", "younger")


def test_a_restarted_controller_resumes_the_rollout(stage: Stage, controller: Run) -> None:
    for node in ("node1", "node2"):
        stage.add_node(node)
        stage.add_agent(node)
    with controller("first") as first:
        resource = stage.apply({"values": {"cni": {"tag": "1"}}})
        until(lambda: container(stage)["image"].endswith(":1"), SOON, "it is rolled out")
        for node in ("node1", "node2"):
            stage.report(node, resource)  # the old agents obey, and are still to be replaced
        until(lambda: stage.nodes().get("updating") == 2, SOON, "two nodes wait")
        renew_agent(stage, "node1")
        until(lambda: stage.nodes().get("ready") == 1, SOON, "one node is done")
        status = stage.resource()["status"]
        first.stop()
    generation, done = stage.daemonset()["metadata"]["generation"], len(stage.requests())
    with controller("second"):
        assert stage.writes(done) == []
        assert stage.resource()["status"] == status
        renew_agent(stage, "node2")
        stage.becomes("HEALTHY")
    assert stage.daemonset()["metadata"]["generation"] == generation


def test_a_missing_daemonset_is_named(stage: Stage, controller: Run) -> None:
    with controller():
        stage.apply({})
        stage.becomes("HEALTHY")
        stage.apps.delete_namespaced_daemon_set("istio-cni-node", NAMESPACE)
        said = stage.becomes("ERROR")
        assert "there is no DaemonSet istio-cni-node in namespace mesh" in said["error"]
        stage.install_chart()
        stage.becomes("HEALTHY")


def test_a_program_that_reverts_the_daemonset_is_named_and_backed_off_from(stage: Stage, controller: Run) -> None:
    undo = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "of.argo/install-cni:1"}]

    def image() -> str:
        return str(stage.daemonset()["spec"]["template"]["spec"]["containers"][0]["image"])

    stage.add_node("node1")
    with controller():
        wanted = stage.apply({"values": {"cni": {"tag": "2"}}})
        for _ in range(4):
            until(lambda: image().endswith(":2"), SOON, "the controller has its way")
            stage.apps.patch_namespaced_daemon_set(DAEMONSET, NAMESPACE, undo, field_manager="argocd-controller")
        until(lambda: stage.condition("Reconciled") == ("False", "Conflict"), SOON, "the resource says who undoes it")
        reverter = f"DaemonSet {NAMESPACE}/{DAEMONSET}: argocd-controller keeps reverting"
        assert reverter in stage.cni()["error"]
        until(lambda: "Conflict" in dict(stage.events(wanted["metadata"]["name"])), SOON, "so does an Event")
        until(lambda: image().endswith(":2"), SOON, "the controller tries again")
        stage.add_node("node2")
        until(lambda: stage.nodes()["total"] == 2, SOON, "it has looked since")
        assert reverter in stage.cni()["error"], "also while nothing is reverted"
        stage.apply({"values": {"cni": {"tag": "3"}}})
        until(lambda: image().endswith(":3"), SOON, "what is new is written all the same")

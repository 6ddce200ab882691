"""What `install-cni takeover --check` says of each thing that there is to take over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from installer.status import takeover
from installer.status.istio_agent import LABELS
from installer.status.model import Cause, Severity, Unavailable
from installer.status.takeover import INJECTED, TakeOver, as_text, plan
from installer.terminal.tables import Style
from tests.status.objects import daemonset, istios_daemonset

if TYPE_CHECKING:
    from installer.status.model import Object

pytestmark = pytest.mark.pure

DATA = {  # as Istio's chart 1.32 has it by default
    "CHAINED_CNI_PLUGIN": "true",
    "EXCLUDE_NAMESPACES": "kube-system",
    "REPAIR_ENABLED": "true",
    "REPAIR_REPAIR_PODS": "true",
    "AMBIENT_ENABLED": "false",
    "ISTIO_OWNED_CNI_CONFIG": "false",
    "NATIVE_NFTABLES": "false",
}
CARRIED = {"excludeNamespaces": ["kube-system"], "inboundPortsDefault": "*", "logLevel": "info"}
UPGRADE = "helm upgrade istio-cni charts/istio-cni --namespace kube-system --reset-values --set cni.hub=REGISTRY/PATH"


def agent(**how: Any) -> Object:
    """Istio's DaemonSet, whose environment is that of a ConfigMap, with directories of the node."""
    made = istios_daemonset(**how)
    spec = made["spec"]["template"]["spec"]
    spec["containers"][0]["envFrom"] = [{"configMapRef": {"name": "istio-cni-config"}}]
    return made


def checked(*daemonsets: Object, pods: Any = (), **data: str) -> TakeOver:
    return plan(daemonsets, {("kube-system", "istio-cni-config"): DATA | data}, pods)


def pod(namespace: str, *, init: bool) -> Object:
    containers = [{"name": "istio-init" if init else "istio-validation"}]
    return {
        "metadata": {"namespace": namespace, "name": "web", "labels": {INJECTED: "istio"}},
        "spec": {"initContainers": containers},
    }


def errors(found: TakeOver) -> list[str]:
    return [each.message for each in found.findings if each.severity is not Severity.INFO]


def test_a_release_of_helm_is_upgraded_in_place_with_its_settings() -> None:
    found = checked(agent())
    assert found.is_possible
    assert found.agents[0].installer == "helm, as release istio-cni"
    assert found.agents[0].values == CARRIED
    definitions, upgrade = found.commands
    assert definitions == "kubectl apply --server-side --filename charts/istio-cni/crds/"
    assert upgrade == (
        f"{UPGRADE} --set-json 'cni.excludeNamespaces=[\"kube-system\"]' --set-json 'cni.inboundPortsDefault=\"*\"' "
        "--set-json 'cni.logLevel=\"info\"'"
    )
    assert found.back == ("helm rollback istio-cni --namespace kube-system",)


@pytest.mark.parametrize(
    ("data", "values"),
    [
        ({"CNI_CONF_NAME": "10-calico.conflist"}, {"cniConfFileName": "10-calico.conflist"}),
        ({"CHAINED_CNI_PLUGIN": "false"}, {"chained": False, "cniConfFileName": "YYY-istio-cni.conf"}),
        ({"NATIVE_NFTABLES": "true"}, {"redirectBackend": "nft"}),
        ({"REPAIR_ENABLED": "false"}, {"repairMode": "none"}),
        ({"REPAIR_REPAIR_PODS": "false", "REPAIR_DELETE_PODS": "true"}, {"repairMode": "delete"}),
        (
            {"ISTIO_OWNED_CNI_CONFIG": "true", "ISTIO_OWNED_CNI_CONF_FILENAME": "02-a.conflist"},
            {"istioOwnedCNIConfig": True, "istioOwnedCNIConfigFileName": "02-a.conflist"},
        ),
        ({"EXCLUDE_NAMESPACES": "istio-system,kube-system"}, {"excludeNamespaces": None}),
    ],
)
def test_each_setting_that_differs_here_is_carried_over(data: dict[str, str], values: dict[str, Any]) -> None:
    (only,) = checked(agent(), **data).agents
    assert only.values == {key: value for key, value in (CARRIED | values).items() if value is not None}


def test_directories_of_the_node_are_carried_over() -> None:
    made = agent()
    spec = made["spec"]["template"]["spec"]
    spec["volumes"][0] = {"name": "volume-0", "hostPath": {"path": "/home/kubernetes/bin"}}
    assert checked(made).agents[0].values == CARRIED | {"cniBinDir": "/home/kubernetes/bin"}


def test_the_environment_of_an_older_chart_is_read_key_by_key() -> None:
    made = istios_daemonset()
    reference = {"configMapKeyRef": {"name": "istio-cni-config", "key": "conf"}}
    made["spec"]["template"]["spec"]["containers"][0]["env"] = [
        {"name": "CNI_CONF_NAME", "valueFrom": reference},
        {"name": "REPAIR_ENABLED", "value": "false"},
        {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
    ]
    found = plan([made], {("kube-system", "istio-cni-config"): {"conf": "10-calico.conflist"}}, [])
    values = found.agents[0].values
    assert (values["cniConfFileName"], values["repairMode"]) == ("10-calico.conflist", "none")


def test_what_has_no_equivalent_is_named_and_does_not_stand_in_the_way() -> None:
    found = checked(agent(), REPAIR_REPAIR_PODS="false", REPAIR_LABEL_PODS="true", REPAIR_LABEL_SELECTORS="a=b")
    assert found.is_possible
    assert found.agents[0].values["repairMode"] == "report"
    said = " ".join(each.message for each in found.findings)
    assert "REPAIR_LABEL_SELECTORS=a=b: each mesh pod of the node is inspected" in said
    assert "it would label pods" in said


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"AMBIENT_ENABLED": "true"}, "this agent supports sidecar mode only. Set ambient.enabled=false"),
        ({"CNI_CONF_NAME": "../x.conflist"}, "CNI_CONF_FILE_NAME"),
        ({"CHAINED_CNI_PLUGIN": "perhaps"}, "CHAINED_CNI_PLUGIN: saw 'perhaps', expected true or false"),
        ({"MONITORING_PORT": "abc"}, "HEALTH_ADDRESS"),
    ],
)
def test_what_stands_in_the_way_is_named_and_no_command_is_shown(data: dict[str, str], said: str) -> None:
    found = checked(agent(), **data)
    assert not found.is_possible
    (only,) = errors(found)
    assert said in only
    assert "To take over:" not in as_text(found, Style())
    assert takeover.plain(found)["commands"] == ()


def test_the_sail_operators_agent_is_removed_by_its_resource() -> None:
    owners = [{"kind": "IstioCNI", "name": "default"}]
    found = checked(agent(ownerReferences=owners))  # the operator is a helm of its own: the annotation is there as well
    assert found.agents[0].installer == "the Sail operator, for IstioCNI default"
    _, keep, remove, install = found.commands
    assert keep == "kubectl get istiocni default --output yaml > ISTIOCNI.yaml"
    assert remove == "kubectl delete istiocni default"
    assert install.startswith("helm upgrade --install istio-cni charts/istio-cni --namespace kube-system")
    assert found.back == (
        "helm uninstall istio-cni --namespace kube-system",
        "kubectl apply --filename ISTIOCNI.yaml",
    )


def test_the_name_of_a_resource_cannot_end_the_command() -> None:
    found = checked(agent(ownerReferences=[{"kind": "IstioCNI", "name": "x; reboot"}]))
    assert [each for each in (*found.commands, *found.back) if "reboot" in each] == [
        "kubectl get istiocni 'x; reboot' --output yaml > ISTIOCNI.yaml",
        "kubectl delete istiocni 'x; reboot'",
    ]


def test_istioctl_removes_its_agent_and_leaves_the_injector_alone() -> None:
    found = checked(agent(helm="", labels={"operator.istio.io/managed": "Reconcile", LABELS[0]: "Cni"}))
    assert found.agents[0].installer == "istioctl"
    assert found.commands[1:3] == (
        (
            "istioctl install --filename FILE --set components.cni.enabled=false "
            "--set unvalidatedValues.pilot.cni.enabled=true"
        ),
        "kubectl --namespace kube-system wait --for=delete daemonset/istio-cni-node --timeout=5m",
    )
    assert found.back[1] == "istioctl install --filename FILE"


def test_an_agent_of_manifests_is_removed_before_its_name_is_taken() -> None:
    found = checked(agent(helm=""))
    assert found.agents[0].installer == "manifests"
    assert found.commands[1] == "kubectl --namespace kube-system delete daemonset istio-cni-node"
    assert found.back[1] == "kubectl apply --filename FILE"


@pytest.mark.parametrize("other", [daemonset(), istios_daemonset(namespace="other")], ids=["ours", "istio's"])
def test_a_second_agent_stands_in_the_way(other: Object) -> None:
    found = checked(agent(), other)
    assert not found.is_possible
    assert "one of several agents" in errors(found)[0]
    assert found.findings[0].remedy.startswith("Uninstall it: helm uninstall istio-cni --namespace")


def test_pods_with_istio_init_change_over_after_the_agent_is_there_and_back_before_it_goes() -> None:
    found = checked(pods=[pod("shop", init=True), pod("shop", init=True), pod("bank", init=False)])
    assert found.is_possible
    assert (found.init, found.others) == ({"shop": 2}, 1)
    restart = "kubectl --namespace shop rollout restart deployments,statefulsets,daemonsets"
    assert found.commands[1].startswith("helm install istio-cni charts/istio-cni")
    assert found.commands[-1] == restart
    assert found.commands[-2].endswith("--set pilot.cni.enabled=true")
    assert found.back[0].endswith("--set pilot.cni.enabled=false")
    assert found.back[1:] == (restart, "helm uninstall istio-cni --namespace kube-system")


def test_without_agent_and_pods_nothing_is_to_be_taken_over() -> None:
    assert checked(daemonset()).summary == "There is nothing to take over: this agent is installed."
    assert checked(daemonset()).commands == ()
    assert checked().summary == "There is nothing to take over: the cluster has no agent of Istio's."


def test_what_cannot_be_read_stands_in_the_way() -> None:
    refused = Unavailable("pods", Cause.FORBIDDEN, '403: pods is forbidden: User "jane" cannot list')
    found = plan([], {}, refused)
    assert not found.is_possible
    assert "--user=jane" in found.findings[0].remedy
    unknown = plan([agent()], {("kube-system", "istio-cni-config"): refused}, [])
    assert not unknown.is_possible
    assert "cannot get ConfigMap istio-cni-config (403" in errors(unknown)[0]


def test_the_text_has_each_command_on_a_line_of_its_own_and_escapes_foreign_text() -> None:
    made = agent()
    made["spec"]["template"]["spec"]["containers"][0]["image"] = "evil\x1b[2J"
    written = as_text(checked(made, pods=[pod("shop", init=False)]), Style(60))
    assert "\x1b" not in written
    assert f"    {UPGRADE} --set-json" in written
    assert "\nTo go back:\n    helm rollback istio-cni --namespace kube-system\n" in written

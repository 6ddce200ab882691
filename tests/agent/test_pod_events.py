"""Which pods get an Event, and which do not."""

from __future__ import annotations

from typing import Any

import pytest

from installer.agent.pod_events import pod_warnings
from installer.pods.verdicts import judge
from plugin.decision import Policy
from plugin.pod import Pod

pytestmark = pytest.mark.pure

PROXY = {"name": "istio-proxy"}
NATIVE = PROXY | {"restartPolicy": "Always"}
EARLY = {"name": "migrate"}
FAILED = {"terminated": {"exitCode": 1}}


def told(
    *, init: tuple[dict[str, Any], ...] = (), ended: Any = None, excluded: str = "other", **annotations: str
) -> list[str]:
    """Return the reasons of the Events on a pod in namespace shop."""
    native = any(each is NATIVE for each in init)
    marks = {"sidecar.istio.io/status": "{}"} | {
        f"traffic.sidecar.istio.io/{key}": value for key, value in annotations.items()
    }
    manifest = {
        "metadata": {"name": "pod", "namespace": "shop", "uid": "1", "annotations": marks},
        "spec": {"containers": [{"name": "app"}, *([] if native else [PROXY])], "initContainers": list(init)},
        "status": {"initContainerStatuses": ended} if ended is not None else None,
    }
    pod = Pod.from_manifest(manifest)
    return [each.reason for each in pod_warnings(judge(pod, Policy(excluded=(excluded,))))]


def state(**states: Any) -> list[dict[str, Any]]:
    return [{"name": "migrate", **states}]


@pytest.mark.parametrize(
    "ended",
    [
        state(state=FAILED),
        state(state={"waiting": {"reason": "CrashLoopBackOff"}}, lastState=FAILED),
        state(state={"running": {}}, lastState=FAILED),
    ],
)
def test_an_init_container_that_fails_before_the_sidecar_is_up_gets_an_event(ended: Any) -> None:
    assert told(init=(EARLY,), ended=ended) == ["InitContainerBeforeSidecar"]
    assert told(init=(EARLY, NATIVE), ended=ended) == ["InitContainerBeforeSidecar"]


@pytest.mark.parametrize(
    "ended",
    [
        None, [], state(), state(state={"running": {}}), state(state={"terminated": {"exitCode": 0}}, lastState=FAILED),
        [{"name": "another", "state": FAILED}], "odd", [3], [{"state": 4}], state(state={"terminated": []}),
    ],
)  # fmt: skip
def test_an_init_container_that_does_not_fail_gets_no_event(ended: Any) -> None:
    assert told(init=(EARLY,), ended=ended) == []


def test_an_init_container_that_has_its_network_gets_no_event() -> None:
    ended = state(state=FAILED)
    assert told(init=(NATIVE, EARLY), ended=ended) == [], "the sidecar is up before it"
    assert told(init=(EARLY | {"securityContext": {"runAsUser": 1337}},), ended=ended) == [], "it counts as the sidecar"
    assert told(init=(EARLY,), ended=ended, includeOutboundIPRanges="") == [], "nothing of it is redirected"
    assert told(init=({"name": "istio-init"}, EARLY), ended=ended) == [], "it is redirected by istio-init"


def test_an_injected_pod_in_an_excluded_namespace_gets_an_event() -> None:
    assert told(excluded="shop") == ["InjectedButExcluded"]
    assert told(init=({"name": "istio-init"},), excluded="shop") == [], "it redirects itself"


def test_a_pod_that_cannot_start_for_another_reason_gets_no_event() -> None:
    assert told(excluded="shop", excludeOutboundPorts="many") == []

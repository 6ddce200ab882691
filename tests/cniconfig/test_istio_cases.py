"""The cases of the tests of Istio's own installer, as data: which configuration the plugin joins, and what a removal leaves.

They are those of `TestInstall` in `cni/test/install_k8s_test.go` (Istio 1.32): its sixteen cases by what is in the directory.
The same configuration gets the entry in each. Differences of ours:

- Theirs renames a `.conf` to `.conflist` for its entry, and leaves that renamed at its end. Ours changes no file of a single
  plugin: a list of its own, which is made from it, comes before it and goes without a trace.
- A list of plugins in a `.conf` is no valid configuration for libcni, so ours does not take it; theirs renames it.
- The name of a configuration of its own is `istio-cni.conf` with our chart, and theirs with Istio's (`tests/config`).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

import pytest

from installer.cniconfig import placement, plan
from tests.cniconfig.examples import ENTRY

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.pure

LIST = json.dumps({"name": "k8s-pod-network", "cniVersion": "0.3.1", "plugins": [{"type": "calico"}]}).encode()
SINGLE = json.dumps({"name": "rkt.kubernetes.io", "type": "bridge", "ipam": {"type": "host-local"}}).encode()
NO_JSON = b'"This is not json"\n\nIt only begins like it.\n'
NO_TYPE = json.dumps({"name": "rkt.kubernetes.io", "bridge": "mybridge"}).encode()
NO_NAME = json.dumps({"cniVersion": "0.3.1", "plugins": [{"type": "calico"}]}).encode()
NO_PLUGINS = json.dumps({"name": "k8s-pod-network", "cniVersion": "0.3.1", "pugins": [{"type": "calico"}]}).encode()


class Case(NamedTuple):
    """One of their cases.

    Attributes:
        files: the directory, in order of names.
        theirs: the file that has the entry there.
        ours: the file that has it here, if it is another one.
        named: CNI_CONF_NAME.
    """

    files: dict[str, bytes]
    theirs: str
    ours: str = ""
    named: str | None = None


CASES = {
    "a list by its name": Case({"00-calico.conflist": LIST}, "00-calico.conflist", named="00-calico.conflist"),
    "a single one by its name": Case({"00-m.conf": SINGLE}, "00-m.conflist", "00-m-istio-cni.conflist", "00-m.conf"),
    "the first is a list": Case({"00-calico.conflist": LIST, "01-m.conf": SINGLE}, "00-calico.conflist"),
    "the first is a single one": Case(
        {"00-m.conf": SINGLE, "01-calico.conflist": LIST}, "00-m.conflist", "00-m-istio-cni.conflist"
    ),
    "no JSON before a single one": Case(
        {"00-x.conf": NO_JSON, "01-m.conf": SINGLE, "02-c.conflist": LIST}, "01-m.conflist", "01-m-istio-cni.conflist"
    ),
    "no JSON before a list": Case({"00-x.conf": NO_JSON, "01-c.conflist": LIST, "02-m.conf": SINGLE}, "01-c.conflist"),
    "no type before a single one": Case(
        {"00-x.conf": NO_TYPE, "01-m.conf": SINGLE, "02-c.conflist": LIST}, "01-m.conflist", "01-m-istio-cni.conflist"
    ),
    "no type before a list": Case({"00-x.conf": NO_TYPE, "01-c.conflist": LIST, "02-m.conf": SINGLE}, "01-c.conflist"),
    "invalid lists before a single one": Case(
        {"00-a.conflist": NO_NAME, "01-b.conflist": NO_PLUGINS, "02-m.conf": SINGLE, "03-c.conflist": LIST},
        "02-m.conflist",
        "02-m-istio-cni.conflist",
    ),
    "invalid lists before a list": Case(
        {"00-a.conflist": NO_NAME, "01-b.conflist": NO_PLUGINS, "02-c.conflist": LIST, "03-m.conf": SINGLE},
        "02-c.conflist",
    ),
    "named .conf, there is a .conflist": Case(
        {"00-calico.conflist": LIST}, "00-calico.conflist", named="00-calico.conf"
    ),
    "named .conflist, there is a .conf": Case(
        {"00-m.conf": SINGLE}, "00-m.conflist", "00-m-istio-cni.conflist", "00-m.conflist"
    ),
}


def after(listing: Mapping[str, bytes], steps: list[plan.Step]) -> dict[str, bytes]:
    """Carry steps out."""
    end = dict(listing)
    for step in steps:
        if isinstance(step, plan.Write):
            end[step.name] = step.content
        else:
            del end[step.name]
    return end


def with_entry(listing: dict[str, bytes]) -> list[str]:
    """Name the files that have our entry."""
    return [name for name, content in listing.items() if b"agentSocket" in content]


@pytest.mark.parametrize("name", CASES)
def test_the_same_configuration_gets_the_entry_and_a_removal_leaves_all_as_it_was(name: str) -> None:
    case = CASES[name]
    end = after(case.files, plan.plan_chained(case.files, ENTRY, case.named))
    assert with_entry(end) == [case.ours or case.theirs]
    assert plan.plan_chained(end, ENTRY, case.named) == []
    assert after(end, plan.removal(end)) == case.files


@pytest.mark.parametrize("named", [None, "missing.conf", "missing.conflist"])
def test_a_configuration_that_comes_later_is_waited_for(named: str | None) -> None:
    different = {} if named is None else {"00-other.conflist": LIST}
    assert plan.plan_chained(different, ENTRY, named) == [], "a configuration of another name is ignored"
    there = different | {"missing.conflist": LIST}
    assert with_entry(after(there, plan.plan_chained(there, ENTRY, named))) == ["missing.conflist"]


@pytest.mark.parametrize("named", ["YYY-istio-cni.conf", "user-defined.conf"])
def test_a_configuration_of_its_own_has_the_name_that_is_asked_for(named: str) -> None:
    there = {"00-calico.conflist": LIST}
    end = after(there, plan.plan_standalone(there, ENTRY, named))
    assert with_entry(end) == [named]
    assert end["00-calico.conflist"] == LIST
    assert after(end, plan.removal(end)) == there


def test_a_list_in_a_conf_is_not_taken() -> None:
    reason = placement.choose({"missing.conf": LIST}, "missing.conf").reason
    assert "saw a list of plugins, expected a single one" in reason


def test_both_names_are_there_and_the_one_that_is_asked_for_counts() -> None:
    there = {"00-x.conf": SINGLE, "00-x.conflist": LIST}
    assert placement.choose(there, "00-x.conf").name == "00-x.conf"
    assert placement.choose(there, "00-x.conflist").name == "00-x.conflist"

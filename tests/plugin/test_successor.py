"""A call that waits for an agent while Istio's own agent takes its plugin's place: it becomes Istio's plugin, its real file."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.plugin.conftest import Agent, calls, config, handed_over, rules
from tests.programs.build import is_built
from tests.programs.lots import ISTIO
from tests.support.call import FROZEN, ROOT, UNACCELERATED, Plugin
from tests.support.netns import Netns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.support.call import Answer

pytestmark = pytest.mark.kernel

FORMS = {"reference": Path(sys.executable), "unaccelerated": UNACCELERATED, "frozen": FROZEN}
ECHO = Path("/bin/cat")  # a successor that answers with its stdin
PREV = '{ "cniVersion":"1.0.0", "ips":[{"address":"10.1.2.3/24"}], "large":123456789012345678901234567890, "é":1.0 }'


class Place(NamedTuple):
    """A node's folders, with the plugin of one form in cniBinDir and its entry in cniConfDir."""

    plugin: Plugin
    agent: Agent
    file: Path
    conflist: Path

    @classmethod
    def make(cls, folder: Path, form: str) -> Place:
        """Install the plugin."""
        for name in ("bin", "net.d", "run"):
            (folder / name).mkdir(parents=True)
        file = folder / "bin" / "istio-cni"
        if form == "reference":
            file.symlink_to(FORMS[form])
        else:
            shutil.copy2(FORMS[form], file)
        command = (str(file), *(("-m", "plugin") if form == "reference" else ()))
        plugin = Plugin(form, command, folder, chrooted=False)
        made = cls(plugin, Agent(folder / "run" / "agent.sock"), file, folder / "net.d" / "10-k8s.conflist")
        made.write({"type": "istio-cni", "agentSocket": str(made.agent.socket)})
        return made

    def write(self, *entries: Mapping[str, Any], name: str = "k8s") -> None:
        """Write the conflist."""
        plugins = [{"type": "bridge"}, *entries]
        self.conflist.write_text(json.dumps({"cniVersion": "1.0.0", "name": name, "plugins": plugins}, indent=2))

    def replace(self, by: Path) -> None:
        """Put another file in the plugin's place, as installers do."""
        shutil.copy2(by, self.file.with_name(".new"))
        self.file.with_name(".new").replace(self.file)

    def istios(self) -> dict[str, Any]:
        """Make an entry of Istio's, by which no pod of the namespace shop is redirected."""
        return {
            "type": "istio-cni",
            "plugin_log_level": "debug",
            "cni_agent_run_dir": str(self.agent.socket.parent),
            "exclude_namespaces": ["shop"],
        }

    async def waiting(self, netns: Path, **more: Any) -> asyncio.Task[Answer]:
        """Begin an ADD, which has met an agent that then went away."""
        stdin = config(self.plugin, self.agent, cniConfDir=str(self.conflist.parent)) | more
        stdin = {key: value for key, value in stdin.items() if value is not None}
        text = json.dumps(stdin | {"prevResult": "HERE"}, sort_keys=True, separators=(",", ":"))
        with socket.socket(socket.AF_UNIX) as poser:
            poser.bind(str(self.agent.socket))
            poser.listen()
            variables = calls(self.plugin, self.agent, netns, MORE="kept")
            call = asyncio.create_task(self.plugin(variables, text.replace('"HERE"', PREV).encode()))
            (await asyncio.to_thread(poser.accept))[0].close()
        self.agent.socket.unlink()
        return call


@pytest.fixture(params=FORMS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place.make(tmp_path / "node", request.param)


@pytest.fixture
def istios() -> Path:
    """Istio's own plugin, as it is released."""
    assert is_built(ISTIO), f"no {ISTIO.title} in {ISTIO.folder}; `make istio` builds it"
    return ISTIO.folder / "istio-cni"


KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: local, cluster: {server: "https://127.0.0.1:1"}}]
contexts: [{name: istio-cni-context, context: {cluster: local}}]
current-context: istio-cni-context
"""


@pytest.mark.slow  # it needs what `make istio` builds
async def test_istios_plugin_answers_by_its_own_entry(place: Place, pod_netns: Netns, istios: Path) -> None:
    place.agent.socket.with_name("istio-cni-kubeconfig").write_text(KUBECONFIG)
    call = await place.waiting(pod_netns.path)
    place.replace(istios)
    place.write(place.istios())
    answer = await call
    assert (answer.status, answer.json["ips"]) == (0, json.loads(PREV)["ips"]), answer
    log = place.agent.socket.with_name("istio-cni.log").read_text()
    assert "pod namespace shop excluded" in log


@pytest.mark.slow  # it needs what `make istio` builds
async def test_an_error_of_istios_plugin_is_the_answer(place: Place, pod_netns: Netns, istios: Path) -> None:
    call = await place.waiting(pod_netns.path)
    place.replace(istios)
    place.write(place.istios())
    answer = await call
    assert answer.status == 1
    assert "failed to createNewK8sClient" in answer.json["msg"]


@pytest.mark.parametrize("asks", [{}, {"capabilities": {"io.kubernetes.cri.pod-annotations": True}}], ids=["", "asks"])
async def test_the_successor_is_given_what_the_runtime_would_give_it(
    place: Place, pod_netns: Netns, asks: dict[str, Any]
) -> None:
    runtimes = handed_over(app="x", **{"sidecar.istio.io/status": "{}"})
    call = await place.waiting(pod_netns.path, runtimeConfig=runtimes)
    place.replace(ECHO)
    (place.conflist.parent / "05-other.conflist").write_text('{"name":"other","plugins":[{"type":"istio-cni"}]}')
    (place.conflist.parent / "06-x.conf").write_text("not JSON")
    place.write({"type": "istio-cni", "zero": 1.0} | asks)
    answer = await call
    assert answer.status == 0
    prev = json.loads(PREV)
    expected = {"type": "istio-cni", "zero": 1.0, "name": "k8s", "cniVersion": "1.0.0", "prevResult": prev} | asks
    assert answer.json == expected | ({"runtimeConfig": runtimes} if asks else {})
    assert PREV.encode() in answer.stdout


async def test_the_successor_is_started_as_by_the_runtime(place: Place, pod_netns: Netns) -> None:
    call = await place.waiting(pod_netns.path)
    place.replace(Path("/usr/bin/env"))
    place.write({"type": "istio-cni"})
    answer = await call
    variables = dict(line.split("=", 1) for line in answer.stdout.decode().splitlines())
    expected = calls(place.plugin, place.agent, pod_netns.path, MORE="kept")
    assert {key: variables.get(key) for key in expected} == expected


async def test_a_new_file_of_this_plugin_changes_nothing_for_a_call_that_waits(place: Place, pod_netns: Netns) -> None:
    call = await place.waiting(pod_netns.path)
    place.replace(FROZEN)
    await asyncio.sleep(0.5)  # it looks every 0.1 s
    async with place.agent.serving():
        answer = await call
    assert answer.status == 0, answer.stdout
    assert "15006" in rules(pod_netns)


def chown(path: Path) -> None:
    os.chown(path, 1, 1)


def too_large(place: Place) -> None:
    with place.conflist.open("a") as file:
        file.write(" " * (1 << 20))


def linked(place: Place) -> None:
    place.conflist.rename(place.file.with_name("elsewhere"))
    place.conflist.symlink_to(place.file.with_name("elsewhere"))


# What is done to a node with an entry of Istio's before its file comes.
NOT_FOLLOWED: dict[str, Callable[[Place], object]] = {
    "the entry is still ours": lambda place: place.write({"type": "istio-cni", "agentSocket": "/x"}),
    "both have an entry": lambda place: place.write({"type": "istio-cni", "agentSocket": "/x"}, place.istios()),
    "no entry": lambda place: place.write(),
    "another network": lambda place: place.write(place.istios(), name="other"),
    "no conflist": lambda place: place.conflist.unlink(),
    "no directory": lambda place: shutil.rmtree(place.conflist.parent),
    "a conflist of another owner": lambda place: chown(place.conflist),
    "a conflist that others may write": lambda place: place.conflist.chmod(0o666),
    "a directory of another owner": lambda place: chown(place.conflist.parent),
    "a directory that others may write to": lambda place: place.conflist.parent.chmod(0o777),
    "a conflist that is too large": too_large,
    "a link": linked,
    "not JSON": lambda place: place.conflist.write_text('{"name":"k8s","plugins":['),
    "another shape": lambda place: place.conflist.write_text('{"name":"k8s","plugins":[7]}'),
    "no file": lambda place: place.file.unlink(),
    "the same file": lambda _: None,
    "not executable": lambda _: None,
}
NOT_REPLACED = ("no file", "the same file")
NOT_EXECUTABLE = Path(__file__)
GIVEN: dict[str, Callable[[Path], object]] = {  # cniConfDir in the entry that the call was started with
    "no cniConfDir, as in Istio's own": lambda _: None,
    "a relative cniConfDir": lambda path: os.path.relpath(path, ROOT),
    "a cniConfDir that is no text": lambda _: 7,
}


@pytest.mark.slow  # as long as the time limit
@pytest.mark.timeout(300)
async def test_whatever_is_not_as_expected_is_waited_out(tmp_path: Path) -> None:
    calling: dict[str, asyncio.Task[Answer]] = {}
    asked: dict[str, str] = {}  # the socket
    with Netns(tmp_path / "netns") as netns:
        for form in FORMS:
            for case in (*NOT_FOLLOWED, *GIVEN):
                place = Place.make(tmp_path / f"{len(calling)}", form)
                folder = GIVEN.get(case, str)(place.conflist.parent)
                call = await place.waiting(netns.path, cniConfDir=folder)
                calling[f"{form}, {case}"], asked[f"{form}, {case}"] = call, str(place.agent.socket)
                place.write(place.istios())
                if case in NOT_FOLLOWED:
                    NOT_FOLLOWED[case](place)
                if case not in NOT_REPLACED:
                    place.replace(NOT_EXECUTABLE if case == "not executable" else ECHO)
        answers = dict(zip(calling, await asyncio.gather(*calling.values()), strict=True))
    said = {
        case: f'"code": 11, "msg": "istio-cni: the istio-cni agent did not answer on {path} '
        for case, path in asked.items()
    }
    assert [case for case, each in answers.items() if each.status != 1 or said[case].encode() not in each.stdout] == []

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
    from collections.abc import Callable

    from tests.support.call import Answer

pytestmark = pytest.mark.kernel

FORMS = {"reference": Path(sys.executable), "unaccelerated": UNACCELERATED, "frozen": FROZEN}
ECHO = Path("/bin/cat")  # a successor that answers with its stdin
PREV = '{ "cniVersion":"1.0.0", "ips":[{"address":"10.1.2.3/24"}], "large":123456789012345678901234567890, "é":1.0 }'
FOLDER = "cni_agent_run_dir"


class Place(NamedTuple):
    """A node's folders, with the plugin of one form in cniBinDir."""

    plugin: Plugin
    agent: Agent
    file: Path

    @classmethod
    def make(cls, folder: Path, form: str) -> Place:
        """Install the plugin."""
        for name in ("bin", "run"):
            (folder / name).mkdir(parents=True)
        file = folder / "bin" / "istio-cni"
        if form == "reference":
            file.symlink_to(FORMS[form])
        else:
            shutil.copy2(FORMS[form], file)
        command = (str(file), *(("-m", "plugin") if form == "reference" else ()))
        plugin = Plugin(form, command, folder, chrooted=False)
        return cls(plugin, Agent(folder / "run" / "agent.sock"), file)

    @property
    def kubeconfig(self) -> Path:
        """That of Istio's plugin."""
        return self.agent.socket.with_name("istio-cni-kubeconfig")

    def replace(self, by: Path) -> None:
        """Put another file in the plugin's place, as installers do."""
        shutil.copy(by, self.file.with_name(".new"))
        self.file.with_name(".new").replace(self.file)

    def give_back(self, by: Path) -> None:
        """Put plugin file and kubeconfig there, as Istio's agent does."""
        self.replace(by)
        self.kubeconfig.write_text("{")

    def stdin(self, **more: Any) -> bytes:
        """What libcni gives the call; a value of None leaves the key out."""
        given = config(self.plugin, self.agent, **{FOLDER: str(self.agent.socket.parent)}) | more
        given = {key: value for key, value in given.items() if value is not None} | {"prevResult": "HERE"}
        return json.dumps(given, sort_keys=True, separators=(",", ":")).replace('"HERE"', PREV).encode()

    async def waiting(self, netns: Path, stdin: bytes = b"", **variables: str) -> asyncio.Task[Answer]:
        """Begin an ADD, which has met an agent that then went away."""
        with socket.socket(socket.AF_UNIX) as poser:
            poser.bind(str(self.agent.socket))
            poser.listen()
            environment = calls(self.plugin, self.agent, netns, MORE="kept", **variables)
            call = asyncio.create_task(self.plugin(environment, stdin or self.stdin()))
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


@pytest.mark.slow  # it needs what `make istio` builds
async def test_istios_plugin_answers_with_the_entry_of_the_call(place: Place, pod_netns: Netns, istios: Path) -> None:
    of_its_agent = {
        "CNI_ARGS": "K8S_POD_NAMESPACE=mesh;K8S_POD_NAME=istio-cni-node-x7k2p"
    }  # for it needs no API server
    call = await place.waiting(pod_netns.path, place.stdin(pod_namespace="mesh"), **of_its_agent)
    place.give_back(istios)
    answer = await call
    assert (answer.status, answer.json["ips"]) == (0, json.loads(PREV)["ips"]), answer


@pytest.mark.slow  # it needs what `make istio` builds
async def test_an_error_of_istios_plugin_is_the_answer(place: Place, pod_netns: Netns, istios: Path) -> None:
    call = await place.waiting(pod_netns.path)
    place.give_back(istios)
    answer = await call
    assert answer.status == 1
    assert "failed to createNewK8sClient" in answer.json["msg"]  # the kubeconfig is no YAML


async def test_the_successor_is_given_what_the_call_was_given(place: Place, pod_netns: Netns) -> None:
    runtimes = handed_over(app="x", **{"sidecar.istio.io/status": "{}"})
    stdin = place.stdin(runtimeConfig=runtimes, large="x" * 100_000)
    call = await place.waiting(pod_netns.path, stdin)
    place.give_back(ECHO)
    answer = await call
    assert (answer.status, answer.stdout) == (0, stdin)


async def test_the_successor_is_started_as_by_the_runtime(place: Place, pod_netns: Netns) -> None:
    call = await place.waiting(pod_netns.path)
    place.give_back(Path("/usr/bin/env"))
    answer = await call
    variables = dict(line.split("=", 1) for line in answer.stdout.decode().splitlines())
    expected = calls(place.plugin, place.agent, pod_netns.path, MORE="kept")
    assert {key: variables.get(key) for key in expected} == expected


async def test_a_call_waits_for_the_kubeconfig(place: Place, pod_netns: Netns) -> None:
    call = await place.waiting(pod_netns.path)
    place.kubeconfig.touch()  # of an agent before
    os.utime(place.kubeconfig, (1, 1))
    place.replace(ECHO)
    await asyncio.sleep(0.5)  # it looks every 0.1 s
    assert not call.done()
    place.kubeconfig.touch()
    assert (await call).status == 0


async def test_a_new_file_of_this_plugin_changes_nothing_for_a_call_that_waits(place: Place, pod_netns: Netns) -> None:
    call = await place.waiting(pod_netns.path)
    place.replace(FROZEN)
    await asyncio.sleep(0.5)  # it looks every 0.1 s
    async with place.agent.serving():
        answer = await call
    assert answer.status == 0, answer.stdout
    assert "15006" in rules(pod_netns)


def with_stale_kubeconfig(place: Place, by: Path) -> None:
    place.kubeconfig.touch()
    os.utime(place.kubeconfig, (1, 1))
    place.replace(by)


def without_file(place: Place, _: Path) -> None:
    place.file.unlink()
    place.kubeconfig.touch()


def not_executable(place: Place, _: Path) -> None:
    place.give_back(Path(__file__))


# How the files of Istio's agent come, if not as they should.
PREPARED: dict[str, Callable[[Place, Path], object]] = {
    "no kubeconfig": Place.replace,
    "a kubeconfig from before": with_stale_kubeconfig,
    "no file": without_file,
    "not executable": not_executable,
}
GIVEN: dict[str, Callable[[Path], object]] = {  # the directory in the entry that the call was started with
    "no directory, as in the entry of a release before": lambda _: None,
    "a relative directory": lambda path: os.path.relpath(path, ROOT),
    "a directory that is no text": lambda _: 7,
}
SAME_FILE = "the same file"


@pytest.mark.slow  # as long as the time limit
@pytest.mark.timeout(300)
async def test_whatever_is_not_as_expected_is_waited_out(tmp_path: Path) -> None:
    calling: dict[str, asyncio.Task[Answer]] = {}
    asked: dict[str, str] = {}  # the socket
    with Netns(tmp_path / "netns") as netns:
        for form in FORMS:
            for case in (*PREPARED, *GIVEN, SAME_FILE):
                place = Place.make(tmp_path / f"{len(calling)}", form)
                folder = GIVEN.get(case, str)(place.agent.socket.parent)
                call = await place.waiting(netns.path, place.stdin(**{FOLDER: folder}))
                calling[f"{form}, {case}"], asked[f"{form}, {case}"] = call, str(place.agent.socket)
                if case != SAME_FILE:
                    PREPARED.get(case, Place.give_back)(place, ECHO)
                else:
                    place.kubeconfig.touch()
        answers = dict(zip(calling, await asyncio.gather(*calling.values()), strict=True))
    said = {
        case: f'"code": 11, "msg": "istio-cni: the istio-cni agent did not answer on {path} '
        for case, path in asked.items()
    }
    assert [case for case, each in answers.items() if each.status != 1 or said[case].encode() not in each.stdout] == []

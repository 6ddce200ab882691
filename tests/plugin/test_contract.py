"""The contract with the container runtime, for `python -m plugin` and the static file, with or without accelerator."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import threading
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest

from plugin import wire
from plugin.backend import Backend, Capability
from plugin.redirect import Feature
from plugin.version import SUPPORTED_VERSIONS
from tests.plugin.conftest import FORMS_OF_THE_PLUGIN, STATUS, Agent, calls, config, handed_over, manifest, rules
from tests.support.call import ROOT
from tests.support.netns import Netns

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.call import Answer, Plugin

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("version", SUPPORTED_VERSIONS)
async def test_version_is_answered_in_the_version_asked_for(plugin: Plugin, version: str) -> None:
    answer = await plugin({"CNI_COMMAND": "VERSION"}, {"cniVersion": version})
    assert answer.status == 0
    assert answer.json == {"cniVersion": version, "supportedVersions": list(SUPPORTED_VERSIONS)}


@pytest.mark.parametrize("stdin", [b"", b'{"cniVersion":"9.9.9"}', b" {} \n"])
async def test_an_unknown_version_is_answered_with_the_supported_ones(plugin: Plugin, stdin: bytes) -> None:
    answer = await plugin({"CNI_COMMAND": "VERSION"}, stdin)
    assert (answer.status, answer.json["supportedVersions"]) == (0, list(SUPPORTED_VERSIONS))


@pytest.mark.parametrize("command", ["DEL", "GC"])
@pytest.mark.parametrize("stdin", [b"", b"garbage", b"{}"])
async def test_del_and_gc_succeed_without_an_agent(plugin: Plugin, command: str, stdin: bytes) -> None:  # F6, F26
    answer = await plugin({"CNI_COMMAND": command, "CNI_NETNS": ""}, stdin)
    assert (answer.status, answer.stdout, answer.stderr) == (0, b"", b"")


async def test_add_redirects_a_meshed_pod(plugin: Plugin, agent: Agent, pod_netns: Netns) -> None:
    async with agent.serving():
        answer = await plugin(calls(plugin, agent, pod_netns.path), config(plugin, agent))
        assert answer.status == 0, answer.stdout
        assert answer.json == config(plugin, agent)["prevResult"]
        assert "15006" in rules(pod_netns)
        check = await plugin(calls(plugin, agent, pod_netns.path, "CHECK"), config(plugin, agent))
        assert (check.status, check.stdout) == (0, b"")
    assert [outcome.outcome for outcome in agent.outcomes] == ["redirect", "redirect"]


async def test_check_reports_differences(plugin: Plugin, agent: Agent, pod_netns: Netns) -> None:
    async with agent.serving():
        answer = await plugin(calls(plugin, agent, pod_netns.path, "CHECK"), config(plugin, agent))
    assert (answer.status, answer.json["code"]) == (1, 100)
    assert "not as it should be" in answer.json["msg"]


OTHER = "K8S_POD_NAME=other;K8S_POD_NAMESPACE=shop;K8S_POD_UID=uid-of-other"
PASSES: dict[str, dict[str, Any]] = {
    "not Kubernetes": {"CNI_ARGS": ""},
    "excluded": {"CNI_ARGS": "K8S_POD_NAME=web;K8S_POD_NAMESPACE=istio-system"},
    "never injected": {"CNI_ARGS": OTHER, "runtimeConfig": handed_over(app="x")},
    "without annotations": {"CNI_ARGS": OTHER, "runtimeConfig": handed_over()},
    "no pod's name": {"CNI_ARGS": "K8S_POD_NAME=My_Pod;K8S_POD_NAMESPACE=shop", "runtimeConfig": handed_over()},
    "no pod's namespace": {
        "CNI_ARGS": "K8S_POD_NAME=web;K8S_POD_NAMESPACE=../x",
        "runtimeConfig": handed_over(app="x"),
    },
    "no pod's uid": {"CNI_ARGS": f"{OTHER}/1;IgnoreUnknown=1", "runtimeConfig": handed_over()},
}


@pytest.mark.parametrize("case", PASSES)
@pytest.mark.parametrize("served", [True, False], ids=["agent", "no agent"])
async def test_a_pod_outside_the_mesh_passes(
    plugin: Plugin, agent: Agent, pod_netns: Netns, case: str, served: bool
) -> None:  # F3
    variables = {k: v for k, v in PASSES[case].items() if k.startswith("CNI_")}
    stdin = config(plugin, agent, **{k: v for k, v in PASSES[case].items() if not k.startswith("CNI_")})
    call = plugin(calls(plugin, agent, pod_netns.path, **variables), stdin)
    if served:
        async with agent.serving():
            answer = await call
    else:
        answer = await call
    assert answer.status == 0, answer.stdout
    assert answer.json == stdin["prevResult"]
    assert rules(pod_netns) == ""


PREV_RESULTS = [
    '{"cniVersion":"1.0.0","ips":[],"zero":1.0,"large":123456789012345678901234567890,"tiny":1e-400}',
    '{ "cniVersion" : "1.0.0",\n\t"dns": {} , "escaped": "\\u00e9\\/\\ud83d\\ude00 é", "twice": 1, "twice": 2 }',
]


@pytest.mark.parametrize("prev", PREV_RESULTS)
@pytest.mark.parametrize("served", [True, False], ids=["agent", "no agent"])
async def test_prev_result_is_returned_unchanged(
    plugin: Plugin, agent: Agent, pod_netns: Netns, prev: str, served: bool
) -> None:
    stdin = json.dumps(config(plugin, agent, prevResult="HERE")).replace('"HERE"', prev).encode()
    call = plugin(calls(plugin, agent, pod_netns.path, CNI_ARGS=""), stdin)
    if served:
        async with agent.serving():
            answer = await call
    else:
        answer = await call
    assert (answer.status, answer.stdout) == (0, prev.encode())


async def test_without_prev_result_the_result_is_empty(plugin: Plugin, agent: Agent, pod_netns: Netns) -> None:
    stdin = config(plugin, agent)
    del stdin["prevResult"]
    async with agent.serving():
        answer = await plugin(calls(plugin, agent, pod_netns.path), stdin)
    assert (answer.status, answer.json) == (0, {"cniVersion": "1.0.0"})


BAD_VARIABLES = {
    "no command": ({"CNI_COMMAND": ""}, 4, "CNI_COMMAND"),
    "unknown command": ({"CNI_COMMAND": "ADDD"}, 4, "'ADDD'"),
    "no container id": ({"CNI_CONTAINERID": ""}, 4, "CNI_CONTAINERID"),
    "no netns": ({"CNI_NETNS": ""}, 4, "CNI_NETNS"),
    "no interface": ({"CNI_IFNAME": ""}, 4, "CNI_IFNAME"),
    "container id with a slash": ({"CNI_CONTAINERID": "../x"}, 4, "CNI_CONTAINERID"),
    "interface with a slash": ({"CNI_IFNAME": "../eth0"}, 4, "CNI_IFNAME"),
    "interface too long": ({"CNI_IFNAME": "e" * 16}, 4, "CNI_IFNAME"),
    "arguments without a value": ({"CNI_ARGS": "K8S_POD_NAME"}, 4, "CNI_ARGS"),
    "another namespace beside it": ({"CNI_ARGS": f"{OTHER};K8S_POD_NAMESPACE=istio-system"}, 4, "K8S_POD_NAMESPACE"),
    "a namespace without a name": ({"CNI_ARGS": "K8S_POD_NAMESPACE=shop"}, 4, "K8S_POD_NAME"),
    "a uid alone": ({"CNI_ARGS": "K8S_POD_NAMESPACE=;K8S_POD_NAME=;K8S_POD_UID=1"}, 4, "K8S_POD_NAME"),
    "a name with a blank": ({"CNI_ARGS": f"{OTHER}; K8S_POD_NAME=web"}, 4, "' K8S_POD_NAME'"),
    "a name in small letters": ({"CNI_ARGS": "k8s_pod_name=web;k8s_pod_namespace=shop"}, 4, "'k8s_pod_name'"),
    "a pod name with a slash": ({"CNI_ARGS": "K8S_POD_NAME=../x;K8S_POD_NAMESPACE=shop"}, 4, "K8S_POD_NAME"),
    "netns missing": ({"CNI_NETNS": "/nowhere"}, 4, "/nowhere"),
}


@pytest.mark.parametrize("case", BAD_VARIABLES)
async def test_invalid_variables_are_named(plugin: Plugin, agent: Agent, pod_netns: Netns, case: str) -> None:
    variables, code, word = BAD_VARIABLES[case]
    async with agent.serving():
        answer = await plugin(calls(plugin, agent, pod_netns.path, **variables), config(plugin, agent))
    assert (answer.status, answer.json["code"]) == (1, code)
    assert word in answer.json["msg"]
    assert "expected" in answer.json["msg"] or "not set" in answer.json["msg"]
    assert answer.json["msg"].encode()[:20] in answer.stderr  # for the kubelet's journal (F24)
    assert rules(pod_netns) == ""


@pytest.mark.parametrize("name", ["My_Pod", "../x", "w" * 254])
@pytest.mark.parametrize("served", [True, False], ids=["agent", "no agent"])
async def test_an_injected_pod_with_no_pods_name_is_refused(
    plugin: Plugin, agent: Agent, pod_netns: Netns, name: str, served: bool
) -> None:
    variables = calls(plugin, agent, pod_netns.path, CNI_ARGS=f"K8S_POD_NAME={name};K8S_POD_NAMESPACE=shop")
    stdin = config(plugin, agent, runtimeConfig=handed_over(**{"sidecar.istio.io/status": "{}"}))
    call = plugin(variables, stdin)
    if served:
        async with agent.serving():
            answer = await call
    else:
        answer = await call
    assert (answer.status, answer.json["code"]) == (1, 4)
    assert "K8S_POD_NAME" in answer.json["msg"]
    assert rules(pod_netns) == ""


BAD_STDIN: dict[str, tuple[bytes, int, str]] = {
    "nothing": (b"", 6, "nothing"),
    "garbage": (b"\x00\xff\x00garbage", 6, "JSON"),
    "truncated": (b'{"agentSocket":"/x","cniVersion":', 6, "JSON"),
    "no object": (b"[]", 6, "object"),
    "not a number": (b'{"a":NaN}', 6, "JSON"),
    "deep": (b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", 6, "JSON"),
    "100 MB": (b"x" * 100_000_000, 6, "more than"),
    "unsupported version": (b'{"cniVersion":"9.9.9"}', 1, "9.9.9"),
    "version of a wrong type": (b'{"cniVersion":[1]}', 1, "cniVersion"),
    "prevResult of a wrong type": (b'{"cniVersion":"1.0.0","prevResult":[]}', 7, "prevResult"),
    "address of a wrong type": (b'{"cniVersion":"1.0.0","prevResult":{"ips":[{"address":1}]}}', 7, "address"),
    "address that is none": (b'{"cniVersion":"1.0.0","prevResult":{"ips":[{"address":"x"}]}}', 7, "prevResult.ips"),
    "namespaces of a wrong type": (b'{"cniVersion":"1.0.0","exclude_namespaces":"all"}', 7, "exclude_namespaces"),
    "annotations of a wrong type": (
        b'{"cniVersion":"1.0.0","runtimeConfig":{"io.kubernetes.cri.pod-annotations":"x"}}',
        7,
        "pod-annotations",
    ),
}


@pytest.mark.parametrize("case", BAD_STDIN)
async def test_bad_stdin_is_refused(plugin: Plugin, agent: Agent, pod_netns: Netns, case: str) -> None:
    stdin, code, word = BAD_STDIN[case]
    if stdin.startswith(b'{"') and stdin.endswith(b"}"):
        stdin = b'{"agentSocket":"%s",' % plugin.seen(agent.socket).encode() + stdin[1:]
    async with agent.serving():
        answer = await plugin(calls(plugin, agent, pod_netns.path), stdin)
    assert (answer.status, answer.json["code"]) == (1, code)
    assert word in answer.json["msg"]
    assert len(answer.stdout) < 2000
    assert rules(pod_netns) == ""


@pytest.mark.parametrize("command", ["CHECK", "STATUS"])
async def test_a_command_newer_than_the_version_is_refused(
    plugin: Plugin, agent: Agent, pod_netns: Netns, command: str
) -> None:
    async with agent.serving():
        answer = await plugin(calls(plugin, agent, pod_netns.path, command), config(plugin, agent, cniVersion="0.3.1"))
    assert (answer.status, answer.json["code"], answer.json["cniVersion"]) == (1, 1, SUPPORTED_VERSIONS[-1])


@pytest.mark.parametrize("kind", ["file", "fifo", "node's own"])
async def test_a_netns_that_is_no_pods_is_refused(
    plugin: Plugin, agent: Agent, tmp_path: Path, kind: str
) -> None:  # F25
    path = tmp_path / "not-a-pod"
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.touch()
    if kind == "node's own" and not plugin.chrooted:
        path = type(path)("/proc/self/ns/net")
    mounted = kind == "node's own" and plugin.chrooted
    if mounted:
        await _run("/bin/mount", "--bind", "/proc/self/ns/net", str(path))
    try:
        async with agent.serving():
            answer = await plugin(calls(plugin, agent, path), config(plugin, agent))
    finally:
        if mounted:
            await _run("/bin/umount", str(path))
    assert (answer.status, answer.json["code"]) == (1, 4)
    assert "CNI_NETNS" in answer.json["msg"]


async def test_an_annotation_that_does_not_parse_fails_the_pod(plugin: Plugin, agent: Agent, pod_netns: Netns) -> None:
    key = "traffic.sidecar.istio.io/excludeOutboundPorts"
    agent.pods.add(manifest(**{key: "80,http; drop"}))
    async with agent.serving():
        answer = await plugin(calls(plugin, agent, pod_netns.path), config(plugin, agent))
    assert (answer.status, answer.json["code"]) == (1, 7)
    assert key in answer.json["msg"]
    assert "http; drop" in answer.json["msg"]
    assert rules(pod_netns) == ""


async def test_a_failed_pod_lookup_asks_the_runtime_to_retry(
    plugin: Plugin, agent: Agent, pod_netns: Netns
) -> None:  # F5
    agent.pods.unavailable = "the API server answers 503"
    async with agent.serving():
        answer = await plugin(calls(plugin, agent, pod_netns.path), config(plugin, agent))
    assert (answer.status, answer.json["code"]) == (1, 11)
    assert "503" in answer.json["msg"]
    assert rules(pod_netns) == ""


async def test_a_pod_of_the_same_name_with_another_uid_does_not_match(
    plugin: Plugin, agent: Agent, pod_netns: Netns
) -> None:
    arguments = "K8S_POD_NAME=web;K8S_POD_NAMESPACE=shop;K8S_POD_UID=another"
    async with agent.serving():
        answer = await plugin(calls(plugin, agent, pod_netns.path, CNI_ARGS=arguments), config(plugin, agent))
    assert (answer.status, answer.json["code"]) == (1, 11)


FORMS: dict[str, dict[str, Any]] = {
    "as libcni": {"separators": (",", ":")},
    "with blanks": {},
    "on lines": {"indent": "\t", "separators": (" ,", "\n: ")},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("order", ["as libcni", "reversed"])
async def test_the_agents_socket_is_found_in_any_form(
    plugin: Plugin, agent: Agent, pod_netns: Netns, order: str, form: str
) -> None:
    stdin = config(plugin, agent)
    posing = {"io.kubernetes.cri.pod-annotations": STATUS | {"agentSocket": "/evil.sock"}}
    stdin["runtimeConfig"] = posing
    keys = sorted(stdin, reverse=order == "reversed")
    data = json.dumps({key: stdin[key] for key in keys}, **FORMS[form]).encode()
    async with agent.serving():
        answer = await plugin(calls(plugin, agent, pod_netns.path), data)
    assert answer.status == 0, answer.stdout
    assert "15006" in rules(pod_netns)


async def test_status_reports_the_node(plugin: Plugin, agent: Agent) -> None:  # F27
    stdin = config(plugin, agent, cniVersion="1.1.0")
    variables = {"CNI_COMMAND": "STATUS", "CNI_PATH": "/opt/cni/bin"}
    away = await plugin(variables, stdin)
    async with agent.serving():
        here = await plugin(variables, stdin)
        agent.capability = Capability(Backend.NFT, {Feature.NAT: "the kernel has no nf_tables"})
        cannot = await plugin(variables, stdin)
    assert (away.status, away.stdout, here.status, here.stdout) == (0, b"", 0, b"")
    assert (cannot.status, cannot.json["code"]) == (1, 50)
    assert "nf_tables" in cannot.json["msg"]


async def test_a_pod_that_needs_a_missing_feature_fails_with_its_name(
    plugin: Plugin, agent: Agent, pod_netns: Netns
) -> None:
    agent.pods.add(manifest(**{"sidecar.istio.io/interceptionMode": "TPROXY"}))
    agent.capability = Capability(Backend.NFT, {Feature.TPROXY: "the kernel has no nft_tproxy"})
    async with agent.serving():
        answer = await plugin(calls(plugin, agent, pod_netns.path), config(plugin, agent))
    assert (answer.status, answer.json["code"]) == (1, 100)
    assert "this node has no tproxy by nft: the kernel has no nft_tproxy" in answer.json["msg"]
    assert rules(pod_netns) == ""


async def test_an_address_that_bypasses_the_sidecar_is_logged(plugin: Plugin, agent: Agent, pod_netns: Netns) -> None:
    stdin = config(plugin, agent, prevResult={"ips": [{"address": "10.0.0.7/24"}, {"address": "fd00::7/64"}]})
    async with agent.serving():
        answer = await plugin(calls(plugin, agent, pod_netns.path), stdin)
    assert answer.status == 0, answer.stdout
    assert agent.outcomes[-1].bypassing == 1
    assert "fd00::7 bypasses its sidecar" in agent.outcomes[-1].reason


async def test_a_meshed_pod_waits_for_its_agent(plugin: Plugin, agent: Agent, pod_netns: Netns) -> None:
    call = asyncio.create_task(plugin(calls(plugin, agent, pod_netns.path), config(plugin, agent)))
    await asyncio.sleep(1.5)
    assert not call.done()
    async with agent.serving():
        answer = await call
    assert answer.status == 0, answer.stdout
    assert "15006" in rules(pod_netns)


async def test_an_unresponsive_agent_delays_only_mesh_pods(plugin: Plugin, agent: Agent, pod_netns: Netns) -> None:
    agent.socket.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(agent.socket))
        mute.listen()
        meshed = asyncio.create_task(plugin(calls(plugin, agent, pod_netns.path), config(plugin, agent)))
        excluded = await plugin(
            calls(plugin, agent, pod_netns.path, CNI_ARGS="K8S_POD_NAME=web;K8S_POD_NAMESPACE=istio-system"),
            config(plugin, agent),
        )
        assert excluded.status == 0
        assert not meshed.done()
    async with agent.serving():
        answer = await meshed
    assert answer.status == 0, answer.stdout


LARGE = bytes((wire.VERSION, wire.RESULT)) + wire.LARGEST_REQUEST.to_bytes(4, "big")
WORDS: dict[str, tuple[bytes, ...]] = {  # what a fake agent repeats before it reports success
    "working": (wire.frame(wire.WORKING, b""),),
    "working, byte by byte": tuple(bytes((byte,)) for byte in wire.frame(wire.WORKING, b"")),
    "a result without an end": (LARGE + b"\0", *[b"x"] * 1000),
    "a head without an end": (bytes((wire.VERSION,)), *[b""] * 1000),
    "a refusal in the next version": (wire.frame(wire.RESULT, b"\x01{}", wire.VERSION + 1),),  # F31
    "working, with a payload without an end": (LARGE.replace(b"\x01\x03", b"\x01\x02"), *[b"x"] * 1000),
}


NOBODY = "no agent at all"


def pose(listener: socket.socket, words: tuple[bytes, ...], ended: threading.Event) -> None:
    """Send these messages to every client, one every half second, until all clients have ended."""
    said: dict[socket.socket, int] = {}
    listener.setblocking(False)
    while not ended.wait(0.5):
        with suppress(BlockingIOError):
            said[listener.accept()[0]] = 0
        for client in [*said]:
            try:
                client.send(words[said[client] % len(words)])
                said[client] += 1
            except OSError:
                client.close()
                del said[client]
    for client in said:
        client.close()


@pytest.mark.slow  # as long as the time limit
@pytest.mark.timeout(300)
async def test_any_call_ends_within_its_time_limit(tmp_path: Path) -> None:  # F5, F28
    """All forms of the plugin call all agents that never answer, at the same time."""
    calling: dict[asyncio.Task[Answer], str] = {}
    netns: list[Netns] = []
    with ExitStack() as stack:
        ended = threading.Event()
        for form in FORMS_OF_THE_PLUGIN:
            folder = tmp_path / form.__name__
            (folder / "run").mkdir(parents=True)
            plugin, agent = form(folder), Agent(folder / "run" / "agent.sock")
            netns.append(stack.enter_context(Netns(folder / "netns")))

            def call(what: str, path: Path) -> None:
                stdin = config(plugin, agent, agentSocket=plugin.seen(path))  # noqa: B023 - it runs in this turn
                task = asyncio.create_task(plugin(calls(plugin, agent, netns[-1].path), stdin))  # noqa: B023
                calling[task] = f"{plugin.name}, {what}"  # noqa: B023

            for number, (what, words) in enumerate(WORDS.items()):
                listener = listening(stack, agent.socket.with_name(f"poser{number}.sock"))
                threading.Thread(target=pose, args=(listener, words, ended)).start()
                call(what, agent.socket.with_name(f"poser{number}.sock"))
            listening(stack, agent.socket, 0)
            stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(agent.socket))
            call("a full queue", agent.socket)
            call(NOBODY, agent.socket.with_name("nobody.sock"))
        stack.callback(ended.set)
        done, forever = await asyncio.wait(calling, timeout=40)  # twice the time that a call has
        for each in forever:
            each.cancel()
        assert [calling[each] for each in forever] == []
        assert [rules(each) for each in netns] == [""] * len(FORMS_OF_THE_PLUGIN)
    for each in done:
        answer = each.result()
        assert (answer.status, answer.json["code"]) == (1, 11), calling[each]
        assert "within 20 s" in answer.json["msg"], calling[each]
        if calling[each].endswith(NOBODY):
            assert re.search(r"did not answer .* kubectl", answer.json["msg"])


def listening(stack: ExitStack, path: Path, backlog: int = 8) -> socket.socket:
    """Have a socket to connect to until the stack ends."""
    listener = stack.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(str(path))
    listener.listen(backlog)
    return listener


async def test_an_agent_that_exits_during_a_request_fails_no_call(plugin: Plugin, agent: Agent) -> None:
    agent.socket.parent.mkdir()
    large = config(plugin, agent, runtimeConfig=handed_over(app="plain"), padding="x" * 500_000)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(agent.socket))
        listener.listen()

        def hang_up() -> None:
            with suppress(OSError):  # the end of the test
                while True:
                    listener.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        netns = agent.socket.with_name("netns")
        netns.touch()
        answer = await plugin(calls(plugin, agent, netns), large)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert (answer.status, answer.json) == (0, large["prevResult"]), answer.stderr


@pytest.mark.parametrize("mesh", [STATUS, {}], ids=["meshed", "outside the mesh"])
async def test_a_pod_with_all_the_annotations_that_an_api_server_takes_starts(
    plugin: Plugin, agent: Agent, pod_netns: Netns, mesh: dict[str, str]
) -> None:
    own = {"page": "<" * ((256 << 10) - 100)}  # which Go writes as \u003c
    given = config(plugin, agent, runtimeConfig=handed_over(**own, **mesh))
    stdin = json.dumps(given).replace("<", "\\u003c").encode()
    assert len(stdin) > 1_500_000
    pod = {} if mesh else {"CNI_ARGS": OTHER}
    async with agent.serving():
        answer = await plugin(calls(plugin, agent, pod_netns.path, **pod), stdin)
    assert answer.status == 0, answer.stdout
    assert answer.json == given["prevResult"]
    assert ("15006" in rules(pod_netns)) == bool(mesh)
    if not mesh:
        without_an_agent = await plugin(calls(plugin, agent, pod_netns.path, **pod), stdin)
        assert without_an_agent.status == 0, without_an_agent.stderr


@pytest.mark.parametrize("size", [1 << 16, 300_000])
async def test_a_large_configuration_and_its_large_result_arrive(
    plugin: Plugin, agent: Agent, pod_netns: Netns, size: int
) -> None:
    prev = {
        "cniVersion": "1.0.0",
        "ips": [{"address": "10.1.2.3/24"}],
        "dns": {"search": ["x" * 1000] * (size // 1000)},
    }
    async with agent.serving():
        answer = await plugin(calls(plugin, agent, pod_netns.path), config(plugin, agent, prevResult=prev))
    assert (answer.status, answer.json) == (0, prev)
    assert "15006" in rules(pod_netns)


async def test_a_configuration_that_arrives_in_pieces_is_read_completely(
    plugin: Plugin, agent: Agent, pod_netns: Netns
) -> None:
    data = json.dumps(config(plugin, agent)).encode()
    async with agent.serving():
        process = await asyncio.create_subprocess_exec(
            *plugin.command,
            env=calls(plugin, agent, pod_netns.path),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin
        for begin in range(0, len(data), 40):
            process.stdin.write(data[begin : begin + 40])
            await process.stdin.drain()
            await asyncio.sleep(0.01)
        process.stdin.close()
        stdout, _ = await process.communicate()
    assert (process.returncode, json.loads(stdout)) == (0, config(plugin, agent)["prevResult"])


async def test_many_environment_variables_are_accepted(plugin: Plugin, agent: Agent, pod_netns: Netns) -> None:
    more = {f"CNI_{number}": "x" * number for number in range(40)}
    async with agent.serving():
        answer = await plugin(calls(plugin, agent, pod_netns.path, **more), config(plugin, agent))
    assert answer.status == 0, answer.stdout


async def test_an_answer_that_arrives_in_pieces_is_read_completely(
    plugin: Plugin, agent: Agent, pod_netns: Netns
) -> None:
    agent.socket.parent.mkdir()
    said = wire.frame(wire.WORKING, b"") * 3 + wire.frame(wire.RESULT, b"\0" + b'{"ips":[]}')
    with socket.socket(socket.AF_UNIX) as poser:
        poser.bind(str(agent.socket))
        poser.listen()
        call = asyncio.create_task(plugin(calls(plugin, agent, pod_netns.path), config(plugin, agent)))
        client, _ = await asyncio.to_thread(poser.accept)
        with client:
            for byte in said:
                client.send(bytes((byte,)))
                await asyncio.sleep(0.03)
            ended = await call
    assert (ended.status, ended.stdout, ended.stderr) == (0, b'{"ips":[]}', b"")


@pytest.mark.slow
async def test_the_plugin_waits_for_a_slow_agent(plugin: Plugin, agent: Agent, pod_netns: Netns) -> None:
    agent.socket.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as poser:
        poser.bind(str(agent.socket))
        poser.listen()
        call = asyncio.create_task(plugin(calls(plugin, agent, pod_netns.path), config(plugin, agent)))
        client, _ = await asyncio.to_thread(poser.accept)
        with client:
            client.send(wire.frame(wire.WORKING, b""))
            await asyncio.sleep(2.5)
            client.send(wire.frame(wire.RESULT, b"\0{}"))
            ended = await call
    assert (ended.status, ended.stdout) == (0, b"{}")


async def test_the_plugin_retries_after_a_partial_answer(plugin: Plugin, agent: Agent, pod_netns: Netns) -> None:
    agent.socket.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as poser:
        poser.bind(str(agent.socket))
        poser.listen()
        call = asyncio.create_task(plugin(calls(plugin, agent, pod_netns.path), config(plugin, agent)))
        client, _ = await asyncio.to_thread(poser.accept)
        client.send(wire.frame(wire.RESULT, b"\0" + b"x" * 100)[:50])
        client.close()
    async with agent.serving():
        answer = await call
    assert (answer.status, answer.json) == (0, config(plugin, agent)["prevResult"])
    assert "15006" in rules(pod_netns)


async def test_an_unread_log_delays_no_answer(plugin: Plugin) -> None:  # F24
    reader, writer = os.pipe()
    os.close(reader)
    process = await asyncio.create_subprocess_exec(
        *plugin.command, env={"CNI_COMMAND": "NONE"}, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=writer
    )
    os.close(writer)
    stdout, _ = await process.communicate()
    assert (process.returncode, json.loads(stdout)["code"]) == (1, 4)


async def test_an_invalid_result_is_refused(plugin: Plugin, agent: Agent, pod_netns: Netns) -> None:
    agent.socket.parent.mkdir()
    for answer in (
        wire.frame(wire.RESULT, b""),
        wire.frame(9, b"\0{}"),
        LARGE[:2] + b"\xff\xff\xff\xff",
        b"HTTP/1.1 200",
    ):
        with socket.socket(socket.AF_UNIX) as poser:
            poser.bind(str(agent.socket))
            poser.listen()
            call = asyncio.create_task(plugin(calls(plugin, agent, pod_netns.path), config(plugin, agent)))
            client, _ = await asyncio.to_thread(poser.accept)
            with client:
                client.send(answer)
                ended = await call
        agent.socket.unlink()
        assert (ended.status, ended.json["code"]) == (1, 5)
        assert "WireError: saw" in ended.json["msg"]


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command)
    assert await process.wait() == 0

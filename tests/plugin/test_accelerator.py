"""The usual call starts no Python (D13), and the accelerator reads a configuration as JSON does."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugin.version import SUPPORTED_VERSIONS
from tests.fuzz.accelerator import CLANG
from tests.plugin.conftest import STATUS, Agent, calls, config, rules
from tests.support.call import FROZEN, ROOT, UNACCELERATED, Plugin
from tests.support.images import compiled

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.netns import Netns

pytestmark = pytest.mark.kernel

ROOM = 1_200_000  # bytes of memory besides the file: enough for the accelerator, and too few for CPython


def with_little_memory(file: Path, folder: Path) -> Plugin:
    limit = f"--as={file.stat().st_size + ROOM}"
    return Plugin("limited", ("/usr/bin/prlimit", limit, str(file)), folder, chrooted=False)


@pytest.fixture
def limited(tmp_path: Path) -> Plugin:
    return with_little_memory(FROZEN, tmp_path)


FORMS: dict[str, dict[str, Any]] = {
    "as libcni": {"separators": (",", ":"), "sort_keys": True},
    "with blanks": {"sort_keys": True},
    "in another order": {},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("command", ["ADD", "CHECK", "STATUS"])
async def test_an_agent_that_answers_needs_no_python(
    limited: Plugin, agent: Agent, pod_netns: Netns, command: str, form: str
) -> None:
    stdin = {"name": "first"} | config(limited, agent, cniVersion="1.1.0")
    data = json.dumps(stdin, **FORMS[form]).encode()
    async with agent.serving():
        if command == "CHECK":
            assert (await limited(calls(limited, agent, pod_netns.path), data)).status == 0
        answer = await limited(calls(limited, agent, pod_netns.path, command), data)
    assert (answer.status, answer.stderr) == (0, b"")
    assert answer.stdout == (json.dumps(stdin["prevResult"], **FORMS[form]).encode() if command == "ADD" else b"")
    assert ("15006" in rules(pod_netns)) == (command != "STATUS")


@pytest.mark.parametrize("question", [b"", *(b'{"cniVersion":"%s"}' % each.encode() for each in SUPPORTED_VERSIONS)])
async def test_version_needs_no_python(limited: Plugin, question: bytes) -> None:
    answer = await limited({"CNI_COMMAND": "VERSION"}, question)
    assert (answer.status, answer.json["supportedVersions"]) == (0, list(SUPPORTED_VERSIONS))
    assert answer.json["cniVersion"] == (json.loads(question)["cniVersion"] if question else SUPPORTED_VERSIONS[-1])


@pytest.mark.parametrize("command", ["DEL", "GC"])
async def test_commands_that_always_succeed_need_no_python(limited: Plugin, command: str) -> None:
    assert (await limited({"CNI_COMMAND": command}, b"garbage")).status == 0


def pages_touched(file: Path, command: str) -> int:
    process = os.posix_spawn(file, [str(file)], {"CNI_COMMAND": command})
    _, status, usage = os.wait4(process, 0)
    assert status == 0
    return usage.ru_minflt


def test_a_call_touches_fewer_pages_than_a_static_program_that_does_nothing() -> None:
    assert pages_touched(FROZEN, "DEL") < pages_touched(compiled("nothing"), "DEL")


def test_what_runs_before_the_c_library_needs_nothing_of_it() -> None:
    lines = subprocess.run(
        ["/usr/bin/nm", "--undefined-only", ROOT / "build" / "start.o"], check=True, capture_output=True, text=True
    )
    assert {line.split()[-1] for line in lines.stdout.splitlines()} == {"_start", "begun"}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="needs the headers of x86-64")
def test_what_runs_before_the_c_library_compiles_for_arm64(tmp_path: Path) -> None:
    """By these headers, but with the system calls that arm64 has."""
    posed = ("-D__x86_64__", "-idirafter", "/usr/include/x86_64-linux-gnu")
    its_calls = ("-D_ASM_X86_UNISTD_H", "-include", "asm-generic/unistd.h")
    options = ("-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'build'}", "-c", "-o", str(tmp_path / "start.o"))
    source = str(ROOT / "plugin" / "frozen" / "start.c")
    subprocess.run([CLANG, "--target=aarch64-linux-gnu", *posed, *its_calls, *options, source], check=True)


@pytest.mark.parametrize("file", [FROZEN, UNACCELERATED], ids=lambda file: file.name)
async def test_the_memory_limit_is_too_low_for_python(tmp_path: Path, file: Path) -> None:
    """The other tests rely on this limit."""
    unusual = b' {"cniVersion":"1.0.0"}' if file == FROZEN else b'{"cniVersion":"1.0.0"}'
    answer = await with_little_memory(file, tmp_path)({"CNI_COMMAND": "VERSION"}, unusual)
    assert (answer.status != 0, answer.stdout) == (True, b"")


@pytest.fixture
def twice(tmp_path: Path) -> str:
    """A program that runs another one with a duplicate variable."""
    source = tmp_path / "twice.c"
    source.write_text(TWICE)
    subprocess.run(["/usr/bin/gcc", "-o", str(tmp_path / "twice"), str(source)], check=True)
    return str(tmp_path / "twice")


async def test_a_duplicate_variable_is_read_as_by_the_reference_plugin(
    twice: str, tmp_path: Path, agent: Agent, pod_netns: Netns
) -> None:
    """The first one: the agent, which would take the last, never gets to see two."""
    for file in (FROZEN, UNACCELERATED):
        plugin = Plugin(file.name, (twice, str(file)), tmp_path, chrooted=False)
        async with agent.serving():
            answer = await plugin(calls(plugin, agent, pod_netns.path), config(plugin, agent))
        assert answer.status == 0, answer.stdout
        assert agent.outcomes[-1].outcome == "redirect"


TWICE = """
#define _GNU_SOURCE
#include <unistd.h>
int main(int count, char **words) {
    char *variables[64] = {0};
    int size = 0;
    for (char **each = environ; *each && size < 60; each++) variables[size++] = *each;
    variables[size] = "CNI_ARGS=K8S_POD_NAMESPACE=istio-system;K8S_POD_NAME=other";
    return execve(words[1], words + 1, variables);
}
"""
FOUND = """
#include "{folder}/plugin/frozen/accelerator.c"
int found(const char *json, size_t size, char *to) {{
    struct sockaddr_un agent = {{0}};
    if (!find_agent((struct text){{json, size}}, &agent)) return 0;
    return strcpy(to, agent.sun_path), 1;
}}
"""


@pytest.fixture(scope="module")
def find(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], str | None]:
    """The accelerator's search for the agent's socket."""
    folder = tmp_path_factory.mktemp("find")
    (folder / "find.c").write_text(FOUND.format(folder=ROOT))
    command = ["/usr/bin/gcc", "-shared", "-fPIC", "-D_GNU_SOURCE", f"-I{ROOT / 'build'}", "-o"]
    subprocess.run([*command, str(folder / "find.so"), str(folder / "find.c")], check=True)
    library = ctypes.CDLL(str(folder / "find.so"))

    def found(json: bytes) -> str | None:
        path = ctypes.create_string_buffer(256)
        return path.value.decode() if library.found(json, ctypes.c_size_t(len(json)), path) else None

    return found


TEXTS = st.sampled_from(
    ["agentSocket", "/a.sock", "/b", "x", '"agentSocket":"/evil"', "\\", '"', "é", "{", "]", ",:", ""]
)
VALUES = st.recursive(
    TEXTS | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=12,
)
WRITTEN = st.fixed_dictionaries(
    {
        "indent": st.sampled_from([None, 0, 1, "\t", " \r\n"]),
        "ensure_ascii": st.booleans(),
        "separators": st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", "\r\n : ")]),
    }
)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None)
@given(VALUES | st.dictionaries(TEXTS, VALUES, max_size=5), WRITTEN)
def test_the_socket_path_is_decoded_as_json(
    find: Callable[[bytes], str | None], value: Any, written: dict[str, Any]
) -> None:
    path = value.get("agentSocket") if isinstance(value, dict) else None
    is_plain = isinstance(path, str) and path.startswith("/")
    assert find(json.dumps(value, **written).encode()) == (path if is_plain else None)


@pytest.mark.parametrize(
    "text",
    [
        *(
            b"",
            b"{",
            b"}",
            b"[]",
            b'"agentSocket":"/a"',
            b'["agentSocket":"/a"]]',
            b'{"agentSocket":"/a"',
            b'{"agentSocket":"/a',
        ),
        *(
            b'{"agentSocket":"/a","agentSocket":"/b"}',
            b'{"agentSocket":"a"}',
            b'{"agentSocket":""}',
            b'{"agentSocket":5}',
        ),
        *(b'{"agentSocket":"/a\\n"}', b'{"agentSocket":"/a\0b"}', b'{"agentSocket":"/%s"}' % (b"a" * 107)),
        *(b'\xef\xbb\xbf{"agentSocket":"/a"}', b'{"x":{"agentSocket":"/a"}}', b'{"x":["agentSocket","/a"]}'),
        *(b'{}}{"agentSocket":"/a"}', b'x{"agentSocket":"/a"}', b'{"agentSocket":"/a"}}', b'{"x":"\\"}'),
    ],
)
def test_unusual_input_is_left_to_python(find: Callable[[bytes], str | None], text: bytes) -> None:
    assert find(text) is None


def test_a_socket_path_of_maximum_length_is_used(find: Callable[[bytes], str | None]) -> None:
    path = "/" + "a" * 106
    assert find(json.dumps({"x": STATUS, "agentSocket": path}).encode()) == path

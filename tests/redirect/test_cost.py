"""What a pod's redirect costs the node: programs that are started, and locks that others hold (F15, F16)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from plugin.backend import Backend
from tests.support.netns import Netns

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
# A process with a /run of its own holds the lock of iptables there, applies both families, and lists what it has started.
APPLY = """
import fcntl, json, sys
from concurrent.futures import ThreadPoolExecutor
from plugin.apply import apply
from plugin.backend import Backend
from plugin.netns import NetnsFd
from plugin.redirect import Family, Redirect

started = []
sys.addaudithook(lambda event, given: event in ("subprocess.Popen", "os.posix_spawn") and started.append(str(given[0])))
with open("/run/xtables.lock", "w") as lock, open(sys.argv[1]) as netns, ThreadPoolExecutor(1) as worker:
    fcntl.flock(lock, fcntl.LOCK_EX)
    redirect = Redirect(families=(Family.V4, Family.V6))
    worker.submit(apply, NetnsFd(netns.fileno()), redirect, Backend(sys.argv[2])).result().free()
print(json.dumps(started))
"""
OWN_RUN = 'mount -t tmpfs tmpfs /run && exec "$@"'


@pytest.fixture
def netns(tmp_path: Path) -> Iterator[Netns]:
    with Netns(tmp_path / "netns") as made:
        yield made


@pytest.mark.parametrize("backend", Backend)
def test_a_pod_waits_for_no_lock_and_starts_no_program_to_find_out_what_works(netns: Netns, backend: Backend) -> None:
    alone = ["/usr/bin/unshare", "--mount", "--propagation=private", "/bin/sh", "-c", OWN_RUN, "sh"]
    command = [*alone, sys.executable, "-c", APPLY, str(netns.path), backend.value]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    started = [Path(program).name for program in json.loads(ended.stdout)]
    # Save, restore, save, of each family: the backend was chosen when the agent started.
    variant = backend.value.removeprefix("iptables-")
    rounds = [] if backend is Backend.NFT else [f"{each}-{variant}" for each in ("iptables", "ip6tables")]
    expected = sorted(f"{each}-{verb}" for each in rounds for verb in ("save", "restore", "save"))
    assert sorted(started) == expected

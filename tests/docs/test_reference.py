"""What the code says in a word (codes, reasons, metrics, keys, fields) the docs explain, and explain nothing else."""

from __future__ import annotations

import ast
import json
import logging
import os
import re
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from installer.config.settings import build_entry, parse_settings
from installer.config.values import Problem
from installer.status import data
from installer.status.model import Finding, Health, NodeWarning, Progress, Repairs, Severity
from installer.telemetry import logs
from plugin.cni import Code
from tests.docs.pages import DOCS, ROOT
from tests.status.objects import NOW, answers, summarize

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.pure

ROOMS = ("agent", "controller", "fleet", "repair", "status")  # those that write conditions and Events
METRICS = ("agent/metrics.py", "controller/metrics.py")
# Words of that form in these rooms that are no reasons of ours.
NOT_OURS = {
    "Kubernetes' kinds": "ClusterRole DaemonSet IstioCNI IstioCNINode Node Pod RoleBinding ServiceAccount",
    "Kubernetes' operators and effects": "DoesNotExist Equal Exists Gt In Lt NoExecute NoSchedule NotIn",
    "Kubernetes' other values": "Apply False Normal OnDelete True Warning",
    "states of a pod": "ContainerCreating Pending PodInitializing PodScheduled",
    "HTTP": "Accept Authorization BearerToken",
    "types of conditions": "Degraded Ready Reconciled",
    "states of a node, and forms of its entry": "Chained Failed Installed Owned Standalone",
    "headings of `install-cni status`": "Backend Conflist Nodes Rollout Uninstall Uninstalling Version",
    "health of the cluster, severity of a finding": "Healthy Info Progressing",
    "why the API server was not asked": "Forbidden NoDefinition",
}

OPERATIONS = (DOCS / "operations.md").read_text()
TROUBLESHOOTING = (DOCS / "troubleshooting.md").read_text()


def _words() -> dict[str, str]:
    """Collect every text of the form of a reason, with the first file that has it."""
    found: dict[str, str] = {}
    for path in (each for room in ROOMS for each in sorted((ROOT / "installer" / room).rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text())):
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and re.fullmatch(r"[A-Z][a-z]+[A-Za-z]*", text):
                found.setdefault(text, str(path.relative_to(ROOT)))
    names = (ROOT / "installer" / "kube" / "names.py").read_text()
    found |= dict.fromkeys(re.findall(r'REDIRECTING = "(\w+)"', names), "installer/kube/names.py")
    return found


def _named(text: str) -> set[str]:
    return set(re.findall(r"`([A-Z][a-z]+[A-Za-z]*)`", text))


def test_each_reason_in_the_code_is_documented() -> None:
    foreign = {word for words in NOT_OURS.values() for word in words.split()}
    words = _words()
    explained = _named(TROUBLESHOOTING)
    missing = {word: where for word, where in words.items() if word not in explained | foreign}
    assert missing == {}, "explain each in docs/troubleshooting.md; if it is no reason, add it to NOT_OURS"


def test_each_documented_reason_exists_in_the_code() -> None:
    tables = "\n".join(line for line in TROUBLESHOOTING.splitlines() if line.startswith("| "))
    first = {word for line in tables.splitlines() for word in _named("|".join(line.split("|")[1:3]))}
    assert first
    assert sorted(first - _words().keys()) == []


def test_each_error_code_is_documented() -> None:
    explained = {int(number) for number in re.findall(r"^\| (\d+) \|", TROUBLESHOOTING, re.MULTILINE)}
    assert explained == {int(code) for code in Code}


def test_exactly_the_existing_metrics_are_documented() -> None:
    text = "".join((ROOT / "installer" / name).read_text() for name in METRICS)
    names = set(re.findall(r'"(istio_cni_[a-z0-9_]+)"', text))
    operations = OPERATIONS.partition("## Metrics")[2]
    explained = {
        each.removesuffix("_total").removesuffix("_info")
        for each in re.findall(r"`(istio_cni_[a-z0-9_]+)`", operations)
    }
    assert names
    assert explained == names


def _paths(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from _paths(each, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value:
        yield from _paths(value[0], f"{path}[]")
    else:
        yield path


def _first_column(heading: str) -> list[str]:
    table = OPERATIONS.partition(heading)[2].partition("\n\n")[0]
    return [name for row in table.splitlines() for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


def test_exactly_the_existing_keys_of_the_status_are_documented() -> None:
    found = summarize(answers())
    node = replace(
        found.nodes[0],
        warning=NodeWarning("Why", "why"),
        missing_features=("ipv6",),
        repairs=Repairs(1, NOW, "a.conflist"),
    )
    plane = replace(found.planes[0], problems=(Problem("spec.cni", "wrong"),), conflicts=("logLevel",))
    finding = Finding(Severity.ERROR, "wrong", "do this")
    whole = replace(found, progress=Progress("Rollout", 1, 3), planes=(plane,), nodes=(node,), findings=(finding,))
    assert sorted(_first_column("| key | value |\n|---|---|\n")) == sorted(_paths(data.plain(whole)))


@pytest.mark.parametrize("word", [each.value for kind in (Health, Severity) for each in kind])
def test_each_value_of_health_and_severity_is_documented(word: str) -> None:
    assert f"`{word}`" in OPERATIONS.partition("### For programs")[2].partition("## Startup taint")[0]


def _extras() -> set[str]:
    """Collect the names of the fields that lines are logged with: each `extra` is a dictionary in place, or named so."""
    found: set[str] = set()
    for path in (each for room in ("installer", "plugin") for each in sorted((ROOT / room).rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text())):
            given = node.value if isinstance(node, ast.keyword) and node.arg == "extra" else None
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "extra":
                given = node.value
            for each in ast.walk(given) if given else ():
                found |= {ast.literal_eval(key) for key in each.keys if key} if isinstance(each, ast.Dict) else set()
    return found


def _of_every_line() -> set[str]:
    """Log an error with its traceback, and more lines than the rate limit allows; return the fields of all lines."""
    reader, writer = os.pipe()
    handler, log = logs.Handler(writer), logging.Logger("test")
    log.addHandler(handler)
    try:
        os.close(-1)
    except OSError:
        log.error("unexpected", exc_info=sys.exc_info())
    for _ in range(300):
        log.error("again")
    handler.summarize()
    os.close(writer)
    with os.fdopen(reader) as lines:
        return {key for line in lines for key in json.loads(line)}


def test_exactly_the_existing_fields_of_log_lines_are_documented() -> None:
    assert sorted(_first_column("| field | value |\n|---|---|\n")) == sorted(_extras() | _of_every_line())


def test_each_row_of_the_decision_table_is_explained() -> None:
    rows = {"redirect", "invalid", "not-installed"}
    for path in (ROOT / "plugin").glob("*.py"):
        text = path.read_text()
        named = dict(re.findall(r'^([A-Z_]+) = "([a-z-]+)"', text, re.MULTILINE))
        rows |= {named.get(each, each) for each in re.findall(r'\bPass\(\s*"?([a-z-]+|[A-Z_]+)\b"?,', text)}
    first = re.findall(r"^\| (`[^|]+`) \|", (DOCS / "explain.md").read_text(), re.MULTILINE)
    assert len(rows) > 8
    assert rows == {name for cell in first for name in re.findall(r"`([a-z-]+)`", cell)}


def test_each_key_of_the_plugins_entry_is_explained() -> None:
    section = (DOCS / "configuration.md").read_text().partition("## The plugin's entry")[2]
    assert {*re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)} == build_entry(parse_settings()).keys()

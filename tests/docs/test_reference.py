"""What the code says in a word (codes, reasons, metrics, rows) the documentation explains, and explains nothing else."""

from __future__ import annotations

import ast
import re

import pytest

from plugin.cni import Code
from tests.docs.pages import DOCS, ROOT

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
    operations = (DOCS / "operations.md").read_text().partition("## Metrics")[2]
    explained = {
        each.removesuffix("_total").removesuffix("_info")
        for each in re.findall(r"`(istio_cni_[a-z0-9_]+)`", operations)
    }
    assert names
    assert explained == names


def test_each_row_of_the_decision_table_is_explained() -> None:
    rows = {"redirect", "invalid", "not-installed"}
    for path in (ROOT / "plugin").glob("*.py"):
        text = path.read_text()
        named = dict(re.findall(r'^([A-Z_]+) = "([a-z-]+)"', text, re.MULTILINE))
        rows |= {named.get(each, each) for each in re.findall(r'\bPass\(\s*"?([a-z-]+|[A-Z_]+)\b"?,', text)}
    first = re.findall(r"^\| (`[^|]+`) \|", (DOCS / "explain.md").read_text(), re.MULTILINE)
    assert len(rows) > 8
    assert rows == {name for cell in first for name in re.findall(r"`([a-z-]+)`", cell)}

"""How deep a document may be nested: as deep as an API server passes on, or less in files."""

from __future__ import annotations

import sys
import threading
from itertools import chain

# Levels (sigs.k8s.io/json). Of kopf's calls two stand for each while it copies an object.
API_SERVERS_DEEPEST = 10_000
# Bytes for each thread, of which only the used ones take memory: json needs 150 for a level, repr 250.
STACK = 8 << 20


def read_as_deep_as_the_api_server() -> None:
    """Let this process and its later threads read whatever an API server passes on, however deep it is nested (F37).

    Anybody who may change a pod decides how deep its managedFields are. With Python's limit of 1,000 levels one such pod
    ends every list and watch that has it.
    """
    sys.setrecursionlimit(max(sys.getrecursionlimit(), 3 * API_SERVERS_DEEPEST))
    threading.stack_size(STACK)


def is_deeper(value: object, levels: int) -> bool:
    """Whether a value has more levels of mappings and lists than these; without recursion."""
    level = [value]
    for _ in range(levels):
        inner = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list))
        level = [*chain.from_iterable(inner)]
    return any(isinstance(each, dict | list) for each in level)

"""kopf, imported without what it would load for features that are not used here. Import kopf from here.

kopf imports `kubernetes` or pykube, if installed, to log in with them. The node agent logs in with `Login`, and 19 MB of unused
modules would be a third of its memory. For webhooks and a health endpoint of its own it imports aiohttp's server, of 2 MB.
"""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING

from installer.kube.aiohttp import aiohttp

if TYPE_CHECKING:
    from collections.abc import Iterator

_CLIENTS = ("kubernetes", "kubernetes_asyncio", "pykube")
_SERVER = "aiohttp.web"


@contextmanager
def _hidden(names: tuple[str, ...]) -> Iterator[None]:
    loaded = {name: sys.modules.get(name) for name in names}
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type] # None is the documented way to forbid an import
    try:
        yield
    finally:
        for name, module in loaded.items():
            del sys.modules[name]
            if module is not None:
                sys.modules[name] = module


@contextmanager
def _without_server() -> Iterator[None]:
    """Have aiohttp's server look loaded; kopf's annotations name some of its classes."""
    if _SERVER in sys.modules:
        yield
        return
    unused = ModuleType(_SERVER)
    unused.__getattr__ = lambda _: object  # type: ignore[method-assign] # PEP 562
    sys.modules[_SERVER] = aiohttp.web = unused
    try:
        yield
    finally:
        del sys.modules[_SERVER], aiohttp.web


with _hidden(_CLIENTS), _without_server():
    import kopf

for _name in ("kopf.objects", "kopf.activities", "kopf._core.engines.activities"):
    logging.getLogger(_name).setLevel(logging.WARNING)  # they log a line for each object

__all__ = ["kopf"]

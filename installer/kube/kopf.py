"""kopf, imported without the API clients that it would load.

kopf imports `kubernetes` or pykube, if installed, to log in with them. The node agent logs in with `Login`, and 19 MB of unused
modules would be a third of its memory. Import kopf from here.
"""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_CLIENTS = ("kubernetes", "kubernetes_asyncio", "pykube")


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


with _hidden(_CLIENTS):
    import kopf

for _name in ("kopf.objects", "kopf.activities", "kopf._core.engines.activities"):
    logging.getLogger(_name).setLevel(logging.WARNING)  # they log a line for each object

__all__ = ["kopf"]

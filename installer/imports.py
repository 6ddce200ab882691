"""Imports of packages without what they would load for features that are not used here: on each node that would be memory.

After the `with` block each module is as it was before.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def absent(*names: str) -> Iterator[None]:
    """Have modules look as if they were not installed."""
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
def hollow(*names: str) -> Iterator[None]:
    """Have modules look loaded, each name in them an empty class: for annotations, and base classes that nobody uses."""
    unloaded = [name for name in names if name not in sys.modules]
    for name in unloaded:
        _set(name, _Hollow(name))
    try:
        yield
    finally:
        for name in unloaded:
            _set(name, None)


class _Hollow(ModuleType):
    def __getattr__(self, name: str) -> type:
        return type(name, (), {})


def _set(name: str, module: ModuleType | None) -> None:
    """Put a module where imports look, and where its package holds it; None: take it away."""
    package, _, short = name.rpartition(".")
    if module is None:
        del sys.modules[name]
        delattr(sys.modules[package], short)
    else:
        setattr(import_module(package), short, module)
        sys.modules[name] = module

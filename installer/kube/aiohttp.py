"""aiohttp, imported without the system's certificate authorities and the C++ library. Import aiohttp from here.

aiohttp reads them when it is imported, for connections without a TLS context of their own: a sixth of the time of all that an
agent imports, and 2 MB. Here each connection has a context, from its credentials.
Its lists of signals' receivers, which are empty here, are of a compiled class that brings the C++ library, 1 MB more.
"""

from __future__ import annotations

import os
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING

from installer.imports import absent

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def _without_authorities() -> Iterator[None]:
    """Have OpenSSL find none, by the variables that name their file and their directory."""
    paths = ssl.get_default_verify_paths()
    before = {name: os.environ.get(name) for name in (paths.openssl_cafile_env, paths.openssl_capath_env)}
    os.environ.update(dict.fromkeys(before, os.devnull))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


with _without_authorities(), absent("frozenlist._frozenlist"):
    import aiohttp

__all__ = ["aiohttp"]

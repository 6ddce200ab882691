"""libnftables by ctypes (libnftables(3)): the one thing in this package that is not the standard library's."""

from __future__ import annotations

import ctypes
from functools import cache

SONAME = "libnftables.so.1"
STATELESS, NUMERIC_PRIORITY = 1 << 2, 1 << 8  # NFT_CTX_OUTPUT_*: list as `plugin.nft` writes
AROUND = 3  # lines shown before and after the one that failed


class NftError(Exception):
    """The kernel or libnftables refused commands: what it said, and the lines around the one that failed."""


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(SONAME)
    except OSError as error:
        raise NftError(f"{SONAME} cannot be loaded: {error}; install libnftables (Debian: libnftables1)") from error
    library.nft_ctx_new.restype = ctypes.c_void_p
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).restype = ctypes.c_char_p
    return library


class Context:
    """A context of libnftables. It belongs to the netns in which it was made, and to one thread at a time.

    Freeing it after a change waits 7 to 20 ms in the kernel: answer the runtime before `close`.
    """

    def __init__(self) -> None:
        self._library = _library()
        self._context = ctypes.c_void_p(self._library.nft_ctx_new(ctypes.c_uint32(0)))
        if not self._context:
            raise NftError("libnftables has no context for us: out of memory?")
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)
        self._library.nft_ctx_output_set_flags(self._context, ctypes.c_uint(STATELESS | NUMERIC_PRIORITY))

    def run(self, commands: str) -> str:
        """Run commands as one transaction.

        Returns:
            What they list.

        Raises:
            NftError: then none of them has had an effect.
        """
        failed = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
        output: bytes = self._library.nft_ctx_get_output_buffer(self._context)
        said: bytes = self._library.nft_ctx_get_error_buffer(self._context)
        if failed:
            raise NftError(_explained(commands, said.decode("utf-8", "replace").strip()))
        return output.decode()

    def close(self) -> None:
        """Free it; may be called again."""
        if self._context:
            self._library.nft_ctx_free(self._context)
            self._context = ctypes.c_void_p()


def _explained(commands: str, said: str) -> str:
    """Put numbered lines around the failing one, which libnftables names as `<cmdline>:LINE:COLUMN-…`."""
    where = said.partition("<cmdline>:")[2].partition(":")[0]
    if not where.isdecimal():
        return said
    failing, lines = int(where), commands.splitlines()
    shown = range(max(1, failing - AROUND), min(len(lines), failing + AROUND) + 1)
    numbered = [f"{'>' if number == failing else ' '} {number}: {lines[number - 1].strip()}" for number in shown]
    return "\n".join([said.splitlines()[0], *numbered])

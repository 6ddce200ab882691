"""libnftables through ctypes (libnftables(3)): this package's only dependency outside the standard library."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

from plugin.backend import RefusedError
from plugin.descriptors import SELECTABLE, low_ones_are_left
from plugin.lines import excerpt

SONAME = "libnftables.so.1"
STATELESS, NUMERIC_PROTOCOL, NUMERIC_PRIORITY = 1 << 2, 1 << 7, 1 << 8  # NFT_CTX_OUTPUT_*: list as `plugin.nft` writes
FLAGS = STATELESS | NUMERIC_PROTOCOL | NUMERIC_PRIORITY


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(SONAME)
    except OSError as error:
        raise RefusedError(f"{SONAME} cannot be loaded: {error}; install libnftables (Debian: libnftables1)") from error
    library.nft_ctx_new.restype = ctypes.c_void_p
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).restype = ctypes.c_char_p
    return library


class Context:
    """A libnftables context. It is bound to the netns that it was created in, and to one thread at a time.

    Freeing it after a change takes 7 to 20 ms in the kernel: answer the runtime before `close`.
    """

    def __init__(self) -> None:
        self._library = _library()
        if not low_ones_are_left():  # it would abort this process (F37)
            raise RefusedError(f"no file descriptor below {SELECTABLE} is free: the agent holds too many files open")
        self._context = ctypes.c_void_p(self._library.nft_ctx_new(ctypes.c_uint32(0)))
        if not self._context:
            raise RefusedError("libnftables made no context: nft_ctx_new returned NULL")
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)
        self._library.nft_ctx_output_set_flags(self._context, ctypes.c_uint(FLAGS))

    def run(self, commands: str) -> str:
        """Run commands as one transaction.

        Returns:
            Their output.

        Raises:
            RefusedError: none of them had an effect.
        """
        if self._library.nft_run_cmd_from_buffer(self._context, commands.encode()):
            return self._run_file(commands)
        return self._output()

    def _run_file(self, commands: str) -> str:
        """Run refused commands again from a file: libnftables 1.0.6 names the failing line only then."""
        self._last_error()  # and forgotten
        file = os.memfd_create("commands")
        try:
            os.write(file, commands.encode())
            path = f"/proc/self/fd/{file}"
            failed = self._library.nft_run_cmd_from_filename(self._context, path.encode())
        finally:
            os.close(file)
        output = self._output()
        if failed:
            raise RefusedError(_explain(commands, self._last_error(), path))
        return output

    def _output(self) -> str:
        output: bytes = self._library.nft_ctx_get_output_buffer(self._context)
        return output.decode()

    def _last_error(self) -> str:
        message: bytes = self._library.nft_ctx_get_error_buffer(self._context)
        return message.decode("utf-8", "replace").strip()

    def close(self) -> None:
        """Free it; idempotent."""
        if self._context:
            self._library.nft_ctx_free(self._context)
            self._context = ctypes.c_void_p()


def main() -> None:
    """Run the commands on stdin, and write their output, or the refusal to stderr; end without freeing, which is slow."""
    try:
        output, message = Context().run(sys.stdin.read()), ""
    except RefusedError as error:
        output, message = "", str(error)
    for stream, text in ((sys.stdout, output), (sys.stderr, message)):
        stream.write(text)
        stream.flush()
    os._exit(bool(message))


def _explain(commands: str, error: str, path: str) -> str:
    """Add numbered lines around the failing one, which libnftables reports as `PATH:LINE:COLUMN-…`."""
    message, _, _ = error.partition("\n")
    where, _, what = message.removeprefix(f"{path}:").partition(":")
    if not where.isdecimal():
        return error
    return f"nft: line {where}: {what.partition(' ')[2]}\n{excerpt(commands, int(where))}"

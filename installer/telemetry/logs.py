"""Structured logs: one JSON object per line on stderr, for the node's journal and `kubectl logs`.

Fields: `time` (UTC, RFC 3339), `level`, `logger`, `msg`, and the message's subject, with the same names everywhere:
`file` (a path), `reason`, `namespace`, `pod`, `seconds`; docs/operations.md lists all.
`istioctl bug-report --duration` keeps only lines that have the first two and `msg`, as Istio's own have.

A log that cannot be written neither fails nor blocks anything (F24): while stderr is closed or nobody reads it, lines are
dropped and counted.

Whatever a tenant's pods do, the lines about them stay few (`installer.ratelimit.flood`). Suppressed lines are counted, as
`suppressed` in the next line of the same message and namespace, or in a line of its own within a minute.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from installer.aio import until_next, wait
from installer.config.value_types import LogLevel
from installer.ratelimit.flood import ALL_LINES, LINES, SAME_LINES, Gate, RateLimiters, SuppressedCounts, done, passes

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

STDERR = 2
_PIPE_BUF = 4096  # bytes that a pipe takes without blocking once poll calls it writable
LONGEST_FIELD = 4096  # characters; a longer field is logged with both ends
SUMMARY_EVERY = 60.0  # seconds
_KOPF = ("settings", "k8s_skip", "k8s_ref")  # fields that kopf adds to its records for its own loggers
_LEVELS = {
    LogLevel.PANIC: logging.CRITICAL,
    LogLevel.FATAL: logging.CRITICAL,
    LogLevel.ERROR: logging.ERROR,
    LogLevel.WARN: logging.WARNING,
    LogLevel.INFO: logging.INFO,
    LogLevel.DEBUG: logging.DEBUG,
}
_NAMES = {number: level for level, number in _LEVELS.items()}  # of the two critical levels, the latter


class _Kind(NamedTuple):
    """The subject of a line: its message, and namespace and name of a pod; empty: none."""

    message: str
    namespace: str = ""
    pod: str = ""

    @classmethod
    def of(cls, record: logging.LogRecord) -> _Kind:
        fields = vars(record)
        return cls(str(record.msg), str(fields.get("namespace", "")), str(fields.get("pod", "")))


class Handler(logging.Handler):
    """Writes lines to a file descriptor without blocking."""

    def __init__(self, fd: int = STDERR) -> None:
        super().__init__()
        reserved = (*RESERVED_ATTRS, *_KOPF)
        self.setFormatter(_Formatter("%(message)s", rename_fields={"message": "msg"}, reserved_attrs=reserved))
        self.dropped = 0
        self._suppressed = SuppressedCounts()
        self._same, self._of_kind, self._of_level = (
            RateLimiters(SAME_LINES),
            RateLimiters(LINES),
            RateLimiters(ALL_LINES),
        )
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._in_line = False  # the last line was truncated

    @property
    def suppressed(self) -> int:
        """How many lines the rate limit suppressed."""
        return self._suppressed.total

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line; or count it as suppressed or as dropped."""
        if record.levelno > logging.DEBUG:  # the debug level asks for all lines
            subject, now = _Kind.of(record), time.monotonic()
            kind = subject._replace(pod="")
            gates: tuple[Gate, ...] = (Gate(self._of_kind, kind),)
            if subject.pod:
                same = subject, str(vars(record).get("reason"))[:LONGEST_FIELD]
                gates = Gate(self._same, same), *gates, Gate(self._of_level, record.levelno)
            if not passes(gates, now):
                self._suppressed.add(kind)
                return
            done(gates, now)
            if suppressed := self._suppressed.take(kind):
                record.suppressed = suppressed
        self._write(record)

    def summarize(self) -> None:
        """Log how many lines were suppressed and not reported yet."""
        self.acquire()
        try:
            for kind, count in self._suppressed.take_all():
                message, namespace = (kind.message, kind.namespace) if isinstance(kind, _Kind) else ("", "")
                fields = {"of": message, "namespace": namespace, "suppressed": count}
                base = {
                    "name": __name__,
                    "levelno": logging.WARNING,
                    "levelname": "WARNING",
                    "msg": "log lines suppressed",
                }
                self._write(logging.makeLogRecord(base | {each: value for each, value in fields.items() if value}))
        finally:
            self.release()

    async def keep_summarizing(self, stop: asyncio.Event) -> None:
        """Log the suppressed lines every minute, until told to stop."""
        while not stop.is_set():
            await wait(stop, until_next(SUMMARY_EVERY))
            self.summarize()

    def _write(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record) + "\n"
        except Exception as error:  # noqa: BLE001 - somebody's __str__: whatever it raises, the caller has other work
            line = f'{{"level": "error", "msg": "a log line could not be made: {type(error).__name__}"}}\n'
        try:
            for piece in _pieces(("\n" if self._in_line else "") + line):
                if not any(events & select.POLLOUT for _, events in self._poll.poll(0)):
                    raise BlockingIOError
                os.write(self._fd, piece)
                self._in_line = not piece.endswith(b"\n")
        except OSError:
            self.dropped += 1


class _Formatter(JsonFormatter):
    """Puts the common fields first."""

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        log_data["time"] = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        log_data["level"] = _NAMES.get(record.levelno, record.levelname.lower())
        log_data["logger"] = record.name
        super().add_fields(log_data, record, message_dict)
        for key, value in log_data.items():
            if isinstance(value, str) and len(value) > LONGEST_FIELD:
                half = LONGEST_FIELD // 2
                log_data[key] = f"{value[:half]} … {len(value) - 2 * half} characters … {value[-half:]}"


def switch(level: LogLevel) -> None:
    """Set the log level, also at run time."""
    logging.getLogger().setLevel(_LEVELS[level])


@contextlib.contextmanager
def to_stderr(level: LogLevel) -> Iterator[Handler]:
    """Send all logs of this process to stderr as JSON for the duration of a block."""
    _open_standard_streams()
    handler = Handler()
    logging.basicConfig(handlers=[handler], force=True)
    switch(level)
    logging.captureWarnings(capture=True)
    try:
        yield handler
    finally:
        handler.summarize()
        logging.getLogger().removeHandler(handler)


def _open_standard_streams() -> None:
    """Occupy the descriptors 0 to 2: if stderr were closed, the next opened file would get its number, and our logs."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is fd
            os.set_inheritable(null, True)
    if sys.stderr is None:
        sys.stderr = os.fdopen(STDERR, "w", closefd=False)


def _pieces(line: str) -> Iterator[bytes]:
    data = line.encode("utf-8", "replace")
    for start in range(0, len(data), _PIPE_BUF):
        yield data[start : start + _PIPE_BUF]

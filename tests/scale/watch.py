"""The one part of the agent that is simulated: kopf, as the API server sees it, with the settings that the agent gives it."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import aiohttp

from installer.kube.backoff import Backoff
from installer.kube.operator import CONNECT_TIMEOUT, REQUEST_TIMEOUT, RETRIES, SILENCE, Operator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from tests.scale.connect import Client

# What kopf asks at its start, whatever it is to watch, before it asks for the group of that.
DISCOVERED = ("/api", "/apis", "/api/v1", "/apis/apiextensions.k8s.io/v1", "/apis/admissionregistration.k8s.io/v1")
RECONNECT = 0.1  # seconds before kopf lists again
_TRIED_AGAIN = (403, 429, 500, 502, 503, 504)  # answers


class RefusedError(Exception):
    """The API server said what kopf ends for."""


class SimulatedOperator(Operator):
    """Lists once, watches from there, and lists again when the server cannot go on from where it was."""

    def __init__(self, stands_for: Operator, client: Client) -> None:
        """Take the place of a kopf operator; `client` sends the requests."""
        super().__init__(None, stands_for._watches, page=stands_for._page)
        self._client = client
        (self._watch,) = self._watches
        (group, version, plural), selector = self._watch.resource, self._watch.field_selector
        self._group = f"/apis/{group}/{version}" if group else f"/api/{version}"
        self._path = f"{self._group}/{plural}"
        self._selector = {"fieldSelector": selector} if selector else {}

    async def run(self, stop: asyncio.Event) -> None:
        """Go on until told to stop.

        Raises:
            RefusedError: if a right is missing.
        """
        told = asyncio.Event()
        self._end = told.set
        ends = [asyncio.create_task(work) for work in (self._list_and_watch(), stop.wait(), told.wait())]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in ends:
                task.cancel()
        with suppress(asyncio.CancelledError):
            await ends[0]

    async def _list_and_watch(self) -> None:
        async with self._client.session(limit=0) as self._session:
            for path in (*DISCOVERED, *({self._group} - {*DISCOVERED})):
                async with await self._ask(path, {}) as answer:
                    await answer.read()
            while True:
                with suppress(aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError):
                    version = await self._list()
                    while version:
                        version = await self._follow(version)
                self._client.tally.again["list anew"] += 1
                await asyncio.sleep(RECONNECT)

    async def _list(self) -> str:
        query = {"limit": str(self._page), **self._selector}
        while True:
            async with await self._ask(self._path, query) as answer:
                page = await answer.json()
            for item in page["items"]:
                self._watch.observe(self._watch.read({"type": None, "object": item}))
            if not (following := page["metadata"].get("continue")):
                return str(page["metadata"]["resourceVersion"])
            query["continue"] = following

    async def _follow(self, version: str) -> str:
        """Watch until the server ends it, or says nothing for too long.

        Returns:
            The version to go on from; empty if there is none.
        """
        query = {"watch": "true", "allowWatchBookmarks": "true", **self._selector, "resourceVersion": version}
        answer = await self._ask(self._path, query, aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT))
        tally = self._client.tally
        tally.watches[self._path] += 1
        try:
            async with answer, asyncio.timeout(SILENCE) as silence:
                async for line in _lines(answer.content):
                    event = json.loads(line)
                    tally.events[self._path, event["type"]] += 1
                    tally.event_bytes[self._path, event["type"]] += len(line)
                    if event["type"] == "ERROR":
                        return ""
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        self._watch.observe(self._watch.read(event))
                    silence.reschedule(asyncio.get_running_loop().time() + SILENCE)
        except (TimeoutError, aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
            pass  # it goes on from where it was
        finally:
            tally.watches[self._path] -= 1
        tally.again["watch anew"] += 1
        return version

    async def _ask(
        self, path: str, query: Mapping[str, str], timeout: aiohttp.ClientTimeout | None = None
    ) -> aiohttp.ClientResponse:
        """Ask, and try again after pauses like those that the agent gives to kopf."""
        tally = self._client.tally
        url = self._client.url + path + (f"?{urlencode(query)}" if query else "")
        timeout = timeout or aiohttp.ClientTimeout(total=REQUEST_TIMEOUT, sock_connect=CONNECT_TIMEOUT)
        backoff = Backoff()
        for tries in range(RETRIES + 1):
            tally.asked()
            try:
                answer = await self._session.get(url, timeout=timeout)
            except (aiohttp.ClientConnectionError, TimeoutError) as error:
                tally.again[type(error).__name__] += 1
                if tries == RETRIES:
                    raise
                after = 0.0
            else:
                tally.answers[answer.status] += 1
                if answer.status == 200:
                    return answer
                async with answer:
                    why = await answer.text()
                tally.again[str(answer.status)] += 1
                if answer.status not in _TRIED_AGAIN or tries == RETRIES:
                    raise RefusedError(f"{url} was answered {answer.status}: {why}")
                after = float(answer.headers.get("Retry-After", 0))
            await asyncio.sleep(backoff.next(after))
        raise AssertionError("the last try ends the loop")


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Yield lines of any length."""
    buffer = b""
    async for chunk in content.iter_any():
        *lines, buffer = (buffer + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line

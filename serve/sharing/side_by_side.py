"""Coroutines -> their results: of one request, which end together, or one for all requests that want the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from contextvars import Context
from typing import Any, Generic, TypeVar

from starlette.types import Receive

from serve.errors import Refusal

T = TypeVar("T")


async def all_of(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Results of all, run side by side; when one fails, the others are ended and its own exception is raised."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        left = [task for task in tasks if not task.done()]
        for task in left:
            if not task.cancelling():  # else it is ending already: a second time would cut that short
                task.cancel()
        if left:
            await asyncio.gather(*left, return_exceptions=True)


class SingleFlight(Generic[T]):
    """Work that is done once for all who ask for it while it is done. Lives in one event loop."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        """work: begun anew for the first who asks when none is under way."""
        self._work = work
        self._task: asyncio.Task[T] | None = None

    async def __call__(self) -> T:
        """What the work gives. Who asks may leave; the work goes on for the others.

        Raises what the work raises, and RuntimeError where somebody else has cancelled it.
        """
        if self._task is None or self._task.done():
            # in an empty context: in that of the first who asks, Serve cancels the work's calls when that one leaves
            self._task = asyncio.get_running_loop().create_task(self._work(), context=Context())
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())  # all may have left
        try:
            return await asyncio.shield(self._task)
        except asyncio.CancelledError:
            asking = asyncio.current_task()
            if asking is None or asking.cancelling():
                raise
            raise RuntimeError("what many wait for was cancelled") from None


async def while_there(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """What the work gives; it is ended when the caller leaves. Raises Refusal then.

    receive: of a request whose body has been read.
    """
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Refusal(400, "the caller left before there was an answer")
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

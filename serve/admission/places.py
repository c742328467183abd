"""A request of a caller -> a place among those that are received, then among those that are answered; or a refusal.

A body counts as it arrives: what is announced holds nothing. One caller has at most half of the places of either kind,
and of the bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from serve.errors import Refusal, come_back
from serve.metrics import Metrics
from serve.settings import ServeSettings
from serve.sharing.shares import Hold, Shares

CLOSE = {"Connection": "close"}
"""Header of a refusal that comes before the body was read: the rest of the body is not wanted."""


class Admission:
    """What one request holds, in `scope["iqa.admission"]`. Lives in one event loop."""

    def __init__(self, places: Places, caller: str, place: Hold, room: Hold) -> None:
        self.caller = caller
        self._places = places
        self._place = place
        self._room = room

    @property
    def num_bytes(self) -> int:
        """What the request has brought so far."""
        return self._room.amount

    def grow(self, num_bytes: int) -> None:
        """Count bytes that came with the request, or were fetched for it.

        Raises Refusal: 413 over `max_body_bytes` in all, 429 where the caller's half of `max_pending_bytes` is used up.
        """
        self._places.check_size(self.num_bytes + num_bytes)
        if not self._room.grow(num_bytes):
            raise self._places.turned_away("bytes", "too many bytes at once; try again")

    def begin_answer(self) -> None:
        """Take a place among those that are answered: the body is there. Raises Refusal (429) where none is free."""
        answering = self._places.answering.taken_at_once(self.caller, 1)
        if answering is None:
            raise self._places.turned_away("places", "too many requests at once; try again", headers=None)
        self._place.shrink_to(0)
        self._place = answering

    def leave(self) -> None:
        """Give back the place and the bytes."""
        self._place.shrink_to(0)
        self._room.shrink_to(0)


class Places:
    """What the requests of one ingress share. Lives in one event loop."""

    def __init__(self, settings: ServeSettings, metrics: Metrics) -> None:
        self.answering = Shares(settings.max_requests)
        self._receiving = Shares(settings.max_requests)
        self._looking = Shares(settings.max_requests)
        self._bytes = Shares(settings.max_pending_bytes)
        self._settings = settings
        self._metrics = metrics

    @property
    def num_taken(self) -> int:
        """Requests that are received or answered."""
        return sum(kind.whole - kind.free for kind in (self._receiving, self.answering))

    @contextmanager
    def taken(self, caller: str) -> Iterator[Admission]:
        """An admission for as long as the context lasts.

        Raises Refusal (429) where no place is free, also among those that are answered: a body would come in vain.
        """
        has_room = self.answering.has_room(caller, 1)
        receiving = self._receiving.taken_at_once(caller, 1) if has_room else None
        if receiving is None:
            raise self.turned_away("places", "too many requests at once; try again")
        admission = Admission(self, caller, receiving, Hold(self._bytes, caller, 0))
        try:
            yield admission
        finally:
            admission.leave()

    @contextmanager
    def looked(self, caller: str) -> Iterator[None]:
        """A place of a request without a body, which is none of those: whoever assesses much keeps nobody from looking.

        Raises Refusal (429) where no place is free.
        """
        place = self._looking.taken_at_once(caller, 1)
        if place is None:
            raise self.turned_away("places", "too many requests at once; try again")
        try:
            yield
        finally:
            place.shrink_to(0)

    def check_size(self, num_bytes: int) -> None:
        """Raise Refusal (413) where one request has more than `max_body_bytes` in all."""
        limit = self._settings.max_body_bytes
        if num_bytes > limit:
            raise Refusal(413, f"the body is over {limit} bytes; send fewer images at once", CLOSE)

    def turned_away(
        self, why: str, message: str, status: int = 429, headers: Mapping[str, str] | None = CLOSE
    ) -> Refusal:
        """The refusal of a request that met a limit of the moment, counted by its name `why`."""
        self._metrics.turned_away[why] += 1
        return come_back(status, message, self._settings.retry_after_s, headers)

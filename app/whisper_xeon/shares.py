"""Who gets how much of what the service has little of, so that nobody takes it from the others.

Connections, uploads, decoders, places in the queue and memory for files are shared by the same rules:

* A caller may have all that is free, as long as nobody else needs some.
* When nothing is free, a newcomer gets what the caller with the most has newest, if that one still has as much
  afterwards as the newcomer: so all end up with equal shares, and who has less than that loses nothing. A caller with a
  lower priority gives way in any case, one with a higher priority never.
* Only what waits is taken away, never what is being decoded or transcribed.
* Where callers wait for a turn, the next is who has the highest priority, then the least, then had none the longest.
* The limits of an API key, and the caps of callers without one, hold always.

It knows nothing about HTTP, nor what it shares out.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import math
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Callable, TypeVar

_POLL_S = 0.5  # how often one that waits for a turn looks whether it is still wanted
_REMEMBERED = 4096  # callers whose last turn is known

_Taken = TypeVar("_Taken", bound="Hold")


@dataclass(frozen=True)
class Caller:
    """Whose connection or request it is; two with the same `id` are the same."""

    id: str
    limits: Mapping[str, int] = field(default_factory=dict, compare=False)  # by the name of what is shared
    priority: int = field(default=0, compare=False)
    capped: bool = field(default=True, compare=False)  # whether the caps of callers without a key hold


NOBODY = Caller("")


class ShareError(Exception):
    """A caller does not get what it needs; `share` is the name of that."""

    def __init__(self, share: str):
        super().__init__(f"no {share} left for this caller")
        self.share = share


class NoneLeft(ShareError):
    """All of it is taken, by callers that have no more than this one would have."""


class OverLimit(ShareError):
    """The caller has all that it may have."""


class SentAway(ShareError):
    """It had some, and another caller that has less got it."""


class Guest:
    """A connection or request of a caller: it may have parts of several shares, and loses all of them together.

    Sending it away takes what it has at once; whatever it does in its thread learns of it from `wake` or `check`.
    """

    def __init__(self, caller: Caller = NOBODY):
        self.caller = caller
        self.sent_away: str | None = None  # for what
        self.idle_since = math.inf  # a time of `time.monotonic`; infinite while it is not idle
        self._settled = False
        self._lock = threading.Lock()

    def wake(self) -> None:
        """End what the guest waits for; called when it is sent away."""

    def is_stirring(self) -> bool:
        """Whether it is about to be idle no longer."""
        return False

    def send_away(self, share: str, *, if_idle: bool = False) -> bool:
        """Take everything from it, because somebody needs some of `share`; false while it must not be disturbed."""
        with self._lock:
            idle = self.idle_since < math.inf
            if self._settled or (if_idle and not idle) or (idle and self.is_stirring()):
                return False
            self.sent_away = self.sent_away or share
        self.wake()
        return True

    def check(self) -> None:
        """Raise `SentAway` if it was sent away."""
        if self.sent_away:
            raise SentAway(self.sent_away)

    def settle(self) -> None:
        """From now on it is worked for, and not sent away. Raises `SentAway` when that is too late."""
        with self._lock:
            self.check()
            self._settled = True

    def rest(self, *, idle: bool = False) -> None:
        """From now on it only waits again; with `idle`, it has what it has for nothing and gives way to anybody."""
        with self._lock:
            self._settled, self.idle_since = False, time.monotonic() if idle else math.inf


class Hold:
    """What one guest has of a share: `amount` so far. A context manager, which gives it back."""

    def __init__(self, shares: Shares, guest: Guest):
        self.guest = guest
        self.caller = guest.caller
        self.amount = 0
        self._shares = shares

    def grow(self, amount: int) -> None:
        """Have `amount` in all, unless it has more already. Raises `ShareError`."""
        if amount > self.amount:
            self._shares.add(self, amount - self.amount)

    def move(self, caller: Caller) -> None:
        """Let it count as another caller's. Raises `OverLimit`, which changes nothing."""
        self._shares.move(self, caller)

    def close(self) -> None:
        """Give it back; twice is harmless."""
        self._shares.drop(self)

    def __enter__(self: _Taken) -> _Taken:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Shares:
    """So many units of one thing. All methods may be called from any thread."""

    def __init__(self, name: str, total: int, *, cap: int | None = None):
        """`name` is what limits of callers call it; `cap` is what each caller without a key may have at most."""
        self.name = name
        self._total = total
        self._cap = total if cap is None else cap
        self._used = 0
        self._holds: dict[Hold, None] = {}  # the newest last
        self._by_caller: collections.Counter[str] = collections.Counter()
        self._line = Line(self.held)
        self._changed = threading.Condition()

    @property
    def used(self) -> int:
        """How many units are taken."""
        return self._used

    def held(self, caller: Caller) -> int:
        """Return how many units a caller has."""
        return self._by_caller[caller.id]

    def take(self, guest: Guest, amount: int = 1) -> Hold:
        """Return so many units. Raises `ShareError`."""
        hold = Hold(self, guest)
        hold.grow(amount)
        return hold

    @contextlib.contextmanager
    def turn(self, guest: Guest, still_wanted: Callable[[], None]) -> Iterator[Hold]:
        """Wait for one unit, which the guest has for the block and is not sent away in.

        `still_wanted` is called now and then during the wait, to raise what ends it. Raises `SentAway`.
        """
        with self._changed:
            ticket = self._line.enter(guest.caller)
        try:
            while (hold := self._try_turn(ticket, guest)) is None:
                guest.check()
                still_wanted()
        finally:
            with self._changed:
                self._line.leave(ticket)
                self._changed.notify_all()
        try:
            with hold:
                yield hold
        finally:
            guest.rest()

    def turn_now(self, guest: Guest) -> Hold | None:
        """Return one unit if it is there and nobody waits for it, else nothing."""
        with self._changed:
            free = self._used < self._total and self._may_have_one(guest.caller)
            return self.take(guest) if free and self._line.next(self._may_have_one) is None else None

    def _try_turn(self, ticket: Ticket, guest: Guest) -> Hold | None:
        with self._changed:
            if self._used < self._total and self._line.next(self._may_have_one) is ticket:
                guest.settle()
                self._line.served(ticket)
                return self.take(guest)
            self._changed.wait(_POLL_S)
            return None

    def _may_have_one(self, caller: Caller) -> bool:
        return self.held(caller) < self._limit(caller)

    def add(self, hold: Hold, amount: int) -> None:
        """Let a hold have more."""
        with self._changed:
            hold.guest.check()
            self._check_limit(hold.caller, amount)
            if self._used + amount > self._total and not self._make_room(hold.caller, amount):
                raise NoneLeft(self.name)
            hold.amount += amount
            self._holds[hold] = None
            self._count(hold.caller, amount)

    def move(self, hold: Hold, caller: Caller) -> None:
        """Let a hold count as another caller's."""
        with self._changed:
            if hold in self._holds and caller.id != hold.caller.id:
                self._check_limit(caller, hold.amount)
                self._count(hold.caller, -hold.amount)
                self._count(caller, hold.amount)
            hold.caller = caller

    def drop(self, hold: Hold) -> None:
        """Take a hold back."""
        with self._changed:
            if hold in self._holds:
                del self._holds[hold]
                self._count(hold.caller, -hold.amount)
                hold.amount = 0
                self._changed.notify_all()

    def await_unused(self, seconds: float) -> bool:
        """Wait until nothing is taken; false when that takes longer than `seconds`."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._used, seconds)

    def _limit(self, caller: Caller) -> int:
        return min(caller.limits.get(self.name, self._total), self._cap if caller.capped else self._total)

    def _count(self, caller: Caller, amount: int) -> None:
        self._used += amount
        self._by_caller[caller.id] += amount
        if not self._by_caller[caller.id]:
            del self._by_caller[caller.id]

    def _check_limit(self, caller: Caller, amount: int) -> None:
        """Raise `OverLimit` when a caller would have too much, after what it has for nothing was ended."""
        limit = self._limit(caller)
        if limit == self._total or self.held(caller) + amount <= limit:
            return
        for hold in [hold for hold in self._holds if hold.caller.id == caller.id]:
            if hold.guest.send_away(self.name, if_idle=True):
                self.drop(hold)
                if self.held(caller) + amount <= limit:
                    return
        raise OverLimit(self.name)

    def _make_room(self, caller: Caller, amount: int) -> bool:
        """Take from others what a caller needs; false when none has so much that it must give way."""
        for hold in sorted(self._holds, key=lambda hold: hold.guest.idle_since):
            if self._used + amount <= self._total:
                return True
            if hold.guest.send_away(self.name, if_idle=True):
                self.drop(hold)
        while self._used + amount > self._total:
            if not self._take_one(caller, amount):
                return False
        return True

    def _take_one(self, caller: Caller, amount: int) -> bool:
        """End what gives way first: of the lowest priority, of the caller that has the most, the newest."""
        needs = self.held(caller) + amount
        others = sorted(
            (hold for hold in self._holds if hold.caller.id != caller.id and hold.caller.priority <= caller.priority),
            key=lambda hold: (hold.caller.priority, -self.held(hold.caller)),
        )
        for _, same in itertools.groupby(others, key=lambda hold: hold.caller.id):
            for hold in reversed(list(same)):
                less = hold.caller.priority < caller.priority
                if (less or self.held(hold.caller) - hold.amount >= needs) and hold.guest.send_away(self.name):
                    self.drop(hold)
                    return True
        return False


class Ticket:
    """A place in a line."""

    def __init__(self, caller: Caller, arrival: int, *, first: bool):
        self.caller = caller
        self.arrival = arrival
        self.first = first


class Line:
    """Who waits for a turn, and whose it is. The caller of its methods holds a lock around them."""

    def __init__(self, held: Callable[[Caller], int]):
        """`held` says how much a caller has already."""
        self._held = held
        self._waiting: dict[Ticket, None] = {}
        self._turns: collections.OrderedDict[str, int] = collections.OrderedDict()  # when each caller had its last one
        self._clock = itertools.count(1)

    def __len__(self) -> int:
        return len(self._waiting)

    def waiting(self, caller: Caller) -> int:
        """Return how many tickets a caller has."""
        return sum(ticket.caller.id == caller.id for ticket in self._waiting)

    def enter(self, caller: Caller, *, first: bool = False) -> Ticket:
        """Begin to wait; with `first`, ahead of all others."""
        ticket = Ticket(caller, next(self._clock), first=first)
        self._waiting[ticket] = None
        return ticket

    def next(self, may: Callable[[Caller], bool] = lambda caller: True) -> Ticket | None:
        """Return whose turn it is, of those that `may` have one."""
        return min((ticket for ticket in self._waiting if may(ticket.caller)), key=self._order, default=None)

    def served(self, ticket: Ticket) -> None:
        """Note that a ticket had its turn."""
        self._turns[ticket.caller.id] = next(self._clock)
        self._turns.move_to_end(ticket.caller.id)
        if len(self._turns) > _REMEMBERED:
            self._turns.popitem(last=False)

    def leave(self, ticket: Ticket) -> None:
        """Wait no longer, with or without a turn."""
        self._waiting.pop(ticket, None)

    def _order(self, ticket: Ticket) -> tuple[bool, int, int, int, int]:
        caller = ticket.caller
        return not ticket.first, -caller.priority, self._held(caller), self._turns.get(caller.id, 0), ticket.arrival

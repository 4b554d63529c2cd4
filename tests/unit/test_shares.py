"""Fair shares: who gets how much, who gives way to whom, whose turn it is, and what limits hold always."""

from __future__ import annotations

import threading

import pytest

from whisper_xeon.shares import Caller, Guest, NoneLeft, OverLimit, SentAway, Shares
from whisper_xeon.web.decoders import Decoders

A, B, C = (Caller(name) for name in "ABC")
LOW, HIGH = Caller("low", priority=-1), Caller("high", priority=1)


class Woken(Guest):
    """A guest that counts how often it was woken."""

    def __init__(self, caller: Caller):
        super().__init__(caller)
        self.times = 0

    def wake(self) -> None:
        self.times += 1


def filled(shares: Shares, caller: Caller, number: int, amount: int = 1) -> list[Woken]:
    guests = [Woken(caller) for _ in range(number)]
    for guest in guests:
        shares.take(guest, amount)
    return guests


def away(guests: list[Woken]) -> list[bool]:
    assert [guest.times > 0 for guest in guests] == [guest.sent_away == "things" for guest in guests]
    return [guest.sent_away == "things" for guest in guests]


def test_one_caller_may_have_everything_while_nobody_else_needs_any():
    shares = Shares("things", 4)
    filled(shares, A, 4)
    assert shares.used == 4
    with pytest.raises(NoneLeft):
        shares.take(Guest(A))


def test_a_newcomer_gets_the_newest_of_who_has_the_most_until_shares_are_equal():
    shares = Shares("things", 6)
    most, fewer = filled(shares, A, 4), filled(shares, B, 2)
    newcomers = filled(shares, C, 2)
    assert away(most) == [False, False, True, True]
    assert (away(fewer), away(newcomers)) == ([False] * 2, [False] * 2)
    with pytest.raises(NoneLeft):
        shares.take(Guest(C))


def test_equal_callers_never_take_from_each_other():
    shares = Shares("things", 4)
    filled(shares, A, 2)
    filled(shares, B, 2)
    for caller in (A, B):
        with pytest.raises(NoneLeft):
            shares.take(Guest(caller))


def test_what_is_worked_on_is_not_taken_away():
    shares = Shares("things", 2)
    worked_on, waiting = filled(shares, A, 2)[::-1]
    worked_on.settle()
    shares.take(Guest(B))
    assert away([worked_on, waiting]) == [False, True]
    worked_on.rest()
    with pytest.raises(NoneLeft):
        shares.take(Guest(B))  # equal by now
    shares.take(Guest(HIGH))
    assert away([worked_on]) == [True]


def test_who_was_sent_away_is_not_worked_for_and_gets_no_more():
    shares, others = Shares("things", 2), Shares("others", 2)
    guest = Woken(A)
    shares.take(guest)
    hold = shares.take(guest)
    shares.take(Guest(B))
    for attempt in (guest.check, guest.settle, lambda: hold.grow(2), lambda: others.take(guest)):
        with pytest.raises(SentAway) as caught:
            attempt()
        assert caught.value.share == "things"
    hold.close()
    assert shares.used == 2


def test_a_lower_priority_gives_way_first_and_a_higher_one_never():
    shares = Shares("things", 4)
    high, normal, low = filled(shares, HIGH, 2), filled(shares, A, 1), filled(shares, LOW, 1)
    shares.take(Guest(B))
    assert (away(high), away(normal), away(low)) == ([False] * 2, [False], [True])
    with pytest.raises(NoneLeft):
        shares.take(Guest(C))


def test_what_somebody_has_for_nothing_goes_first_the_longest_idle_before_all_and_whoever_has_it():
    shares = Shares("things", 3)
    (busy,), (later,), (longest,) = (filled(shares, caller, 1) for caller in (A, B, C))
    longest.rest(idle=True)
    later.rest(idle=True)
    filled(shares, A, 1)
    assert away([busy, later, longest]) == [False, False, True]


def test_bytes_are_shared_like_pieces():
    shares = Shares("things", 1000)
    stalled = filled(shares, A, 10, amount=100)
    upload = shares.take(Guest(B), 0)
    upload.grow(450)
    assert away(stalled) == [False] * 5 + [True] * 5
    with pytest.raises(NoneLeft):
        upload.grow(501)
    upload.close()
    assert shares.used == 500


def test_a_cap_holds_for_callers_without_a_key_and_a_limit_for_its_key():
    shares = Shares("things", 10, cap=4)
    keyed = Caller("key a", limits={"things": 6, "others": 1}, capped=False)
    free = Caller("key b", capped=False)
    for caller, number in ((A, 4), (keyed, 6)):
        held = [shares.take(Guest(caller)) for _ in range(number)]
        with pytest.raises(OverLimit):
            shares.take(Guest(caller))
        for hold in held:
            hold.close()
    filled(shares, free, 10)


def test_what_a_caller_has_for_nothing_makes_room_below_its_own_limit():
    shares = Shares("things", 10, cap=2)
    idle, busy = filled(shares, A, 2)
    idle.rest(idle=True)
    shares.take(Guest(A))
    assert away([idle, busy]) == [True, False]


def test_a_hold_may_become_another_callers():
    shares = Shares("things", 10)
    hold = shares.take(Guest(A), 3)
    keyed = Caller("key a", limits={"things": 5})
    hold.move(keyed)
    assert (shares.held(A), shares.held(keyed), shares.used) == (0, 3, 3)
    with pytest.raises(OverLimit):
        shares.take(Guest(A), 3).move(keyed)
    assert (shares.held(A), shares.held(keyed)) == (3, 3)


class Turns:
    """Callers that wait for a turn in threads of their own, and the order in which they get it."""

    def __init__(self, shares: Shares):
        self.shares = shares
        self.order: list[str] = []
        self._threads: list[threading.Thread] = []

    def enter(self, caller: Caller) -> None:
        before = len(self.shares._line)

        def wait() -> None:
            with self.shares.turn(Guest(caller), lambda: None):
                self.order.append(caller.id)

        self._threads.append(threading.Thread(target=wait))
        self._threads[-1].start()
        while len(self.shares._line) == before and self._threads[-1].is_alive():
            pass

    def join(self) -> list[str]:
        for thread in self._threads:
            thread.join(10)
        return self.order


def test_turns_go_round_among_those_who_wait_by_priority():
    shares = Shares("things", 1)
    turns = Turns(shares)
    with shares.turn(Guest(C), lambda: None):
        for caller in (LOW, A, A, A, C, B, B, HIGH):
            turns.enter(caller)
    assert turns.join() == ["high", "A", "B", "C", "A", "B", "A", "low"]


def test_a_caller_at_its_cap_does_not_hold_up_the_others():
    shares = Shares("things", 2, cap=1)
    turns = Turns(shares)
    with shares.turn(Guest(A), lambda: None):
        turns.enter(A)
        turns.enter(B)
        turns._threads[1].join(10)
        assert turns.order == ["B"]
    assert turns.join() == ["B", "A"]


def test_who_waits_for_a_turn_may_give_up_or_be_sent_away(monkeypatch):
    monkeypatch.setattr("whisper_xeon.shares._POLL_S", 0.01)
    shares = Shares("things", 1)
    guest = Guest(B)
    others = Shares("others", 2)
    others.take(guest)
    others.take(guest)

    def give_up() -> None:
        raise KeyError

    with shares.turn(Guest(A), lambda: None):
        with pytest.raises(KeyError), shares.turn(Guest(B), give_up):
            pass
        with pytest.raises(SentAway), shares.turn(guest, lambda: others.take(Guest(C))):
            pass
        assert shares.used == 1
    assert shares.used == 0


def test_a_limit_of_decoders_holds_for_each_kind_of_files_by_itself():
    decoders = Decoders(cores=8)
    key = Caller("key", {"decoders": 1}, capped=False)

    class Waits(Exception):
        """It is not its turn."""

    def still_wanted() -> None:
        raise Waits

    def decode_another(*, plain: bool) -> str:
        return decoders.run(Guest(key), lambda look: "decoded", plain=plain, still_wanted=still_wanted)

    def decode(look) -> str:
        with pytest.raises(Waits):
            decode_another(plain=True)
        return decode_another(plain=False)

    assert decoders.run(Guest(key), decode, plain=True, still_wanted=still_wanted) == "decoded"

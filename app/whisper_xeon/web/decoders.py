"""How many files are decoded at a time, so that short ones never wait for long ones, whoever sends those."""

from __future__ import annotations

import contextlib
import time
from typing import Callable, TypeVar

from whisper_xeon.shares import Guest, Hold, Shares

_MOST = 4  # each may take 400 MB, and decoding is many times as fast as an engine
_PLAIN = 2
_SHORT_SECONDS = 3.0  # nearly all recordings take less, and an hour of MP3 some more

_Decoded = TypeVar("_Decoded")


class Decoders:
    """The decoders of a service. Its method may be called from any thread."""

    def __init__(self, cores: int):
        number = min(cores, _MOST)
        short = max(1, number // 2)
        long = max(1, number - short)
        self._short = Shares("decoders", short)
        # A caller without a key never has all of them.
        self._long = Shares("decoders", long, cap=max(1, long - 1))
        # Long WAV files in the form that engines take: nothing that takes ffmpeg longer must be in their way.
        self._plain = Shares("decoders", _PLAIN)

    def run(
        self,
        guest: Guest,
        work: Callable[[Callable[[], None]], _Decoded],
        *,
        plain: bool,
        still_wanted: Callable[[], None],
    ) -> _Decoded:
        """Decode a file when it is its turn, and return what `work` returns.

        `work` gets a function to call every now and then, and may be called twice: what takes longer than short files
        do goes on as a long one, or begins again when the next of those may. `still_wanted` raises what ends the wait.
        Raises `ShareError`.
        """
        if plain:
            with self._plain.turn(guest, still_wanted):
                return work(lambda: None)
        with contextlib.suppress(_TakesLonger), contextlib.ExitStack() as stack:
            short = stack.enter_context(self._short.turn(guest, still_wanted))
            ends = time.monotonic() + _SHORT_SECONDS

            def look() -> None:
                if short.amount and time.monotonic() > ends:
                    stack.enter_context(self._grow_long(guest))
                    short.close()

            return work(look)
        with self._long.turn(guest, still_wanted):
            return work(lambda: None)

    def _grow_long(self, guest: Guest) -> Hold:
        hold = self._long.turn_now(guest)
        if hold is None:
            raise _TakesLonger
        return hold


class _TakesLonger(Exception):
    """The file is not a short one, and no decoder for long ones is free."""

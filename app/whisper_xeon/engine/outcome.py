"""How a request to the engines ends: with a result, or with the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass

from whisper_xeon.transcript import Transcript


@dataclass(frozen=True)
class EngineResult:
    """A transcript, and what it took."""

    transcript: Transcript
    wait_s: float  # seconds in the queue
    compute_s: float  # seconds of the attempt that succeeded
    attempts: int  # workers that it took: 1, or more where some were lost


class EngineError(Exception):
    """A request was not transcribed; base of the errors below."""


class QueueFull(EngineError):
    """The queue holds as many requests as it may; trying again makes sense after `retry_after` seconds (whole)."""

    def __init__(self, retry_after: int):
        super().__init__(f"all engines are busy and the queue is full; try again in {retry_after} s")
        self.retry_after = retry_after


class EngineCrashed(EngineError):
    """The worker died of this request, and so did the one that tried again."""


class EngineTimeout(EngineError):
    """The request made no progress until its deadline."""


class EngineUnavailable(EngineError):
    """There will be no engines: the model cannot be loaded. The message may name files of this host."""


class EngineStopped(EngineUnavailable):
    """There are no engines any more: the pool was stopped."""

    def __init__(self) -> None:
        super().__init__("the service is stopping")


class EnginesHang(EngineError):
    """Several workers in a row hung on this request, and were killed."""

    def __init__(self) -> None:
        super().__init__("the engines hang, and are being replaced")


class TextChanged(EngineError):
    """Another attempt wrote another text than the one whose beginning was passed on already."""

    def __init__(self) -> None:
        super().__init__("an engine was lost, and the next one wrote another text")


class RequestRejected(EngineError):
    """The model cannot do what the request asks for; the message is for the person who sent it."""


class EngineFailed(EngineError):
    """The library reported an error for this request."""


class Cancelled(EngineError):
    """`cancelled` returned true; nobody is waiting for this request any more."""

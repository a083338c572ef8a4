"""Signals that ask a training to stop: it ends the step at hand and saves."""

import signal
from types import FrameType
from typing import Any

import torch
from accelerate.utils import reduce


class StopRequest:
    """Remembers SIGTERM or Ctrl-C, so that the loop can save before it ends."""

    def __init__(self) -> None:
        self.received = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def received_anywhere(self, device: torch.device) -> bool:
        """Whether any process was asked to stop; all processes have to call it together."""
        received = torch.tensor([float(self.received)], device=device)
        return bool(reduce(received, reduction="sum").item() > 0)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True


def leave_signals_to_parent(worker: int) -> None:
    """For workers that load data: the process that they work for decides when to stop."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)

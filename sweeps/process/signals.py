"""Signals, and the end of the process: SIGINT, SIGTERM and SIGHUP stop a command at any moment.

All threads block these signals, and one thread waits for them. So a signal counts whatever the main
thread does, even in a library that does not return, and no library can replace the handler.
Processes that are started inherit the block. An object that has something to save receives the
signals by `received_by`; without one, the process ends at once. This module is loaded before all
others, so it imports the standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn, Protocol

TAKEN = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CUT = signal.SIGALRM  # interrupts the main thread, whatever it does
INTERRUPTED = 130  # the exit code
LAST_S = 1.0  # how long the last lines may take: a terminal or a pipe may be stuck


class Receiver(Protocol):
    """An object that decides what a signal does."""

    def on_signal(self, number: int) -> None:
        """Handle a signal; called on the thread that waits for signals."""

    def on_cut(self) -> None:
        """Raise KeyboardInterrupt if the main thread, which calls this, may be interrupted now."""


class _Watch:
    """Waits for the signals of this process; there is one."""

    def __init__(self) -> None:
        self.is_started = False
        self.receiver: Receiver | None = None
        self.last_line = ""
        self.clean_ups: list[Callable[[], object]] = []
        self.ending = threading.Lock()  # held by the thread that ends the process; never released

    def start(self) -> None:
        self.is_started = True
        ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN  # nohup
        taken = [number for number in TAKEN if number != signal.SIGHUP or not ignored]
        signal.pthread_sigmask(signal.SIG_BLOCK, taken)
        for number in taken:  # `unblocked` lets them through
            signal.signal(number, lambda number, frame: self.handle(number))
        signal.signal(CUT, self._on_cut)
        sys.unraisablehook = _not_of_cuts
        threading.Thread(target=self._wait, args=(taken,), name="signals", daemon=True).start()

    def _on_cut(self, number: int, frame: object) -> None:
        if self.receiver:
            self.receiver.on_cut()

    def _wait(self, taken: Sequence[signal.Signals]) -> None:
        while True:
            self.handle(signal.sigwait(taken))

    def handle(self, number: int) -> None:
        if number == signal.SIGHUP:
            _drop_terminal()
        if self.receiver is None:
            end_process()
        self.receiver.on_signal(number)

    def end_process(self, message: str, save: Callable[[], object], code: int) -> NoReturn:
        self.ending.acquire()

        def end() -> None:
            _call(save, sys.stdout.flush)
            _write(message)
            _call(*reversed(self.clean_ups))

        thread = threading.Thread(target=end, daemon=True)
        thread.start()
        thread.join(LAST_S)
        os._exit(code)


_watch = _Watch()


def watch(last_line: str) -> None:
    """Handle signals from now on, to the end of the process.

    Args:
        last_line: printed by `end_process` after its message; may be empty.
    """
    _watch.last_line = last_line
    _watch.start()


def are_watched() -> bool:
    """Return whether `watch` was called: this is a process of the `sweeps` command."""
    return _watch.is_started


@contextlib.contextmanager
def received_by(receiver: Receiver) -> Iterator[None]:
    """Context manager: let an object decide what a signal does."""
    before, _watch.receiver = _watch.receiver, receiver
    try:
        yield
    finally:
        _watch.receiver = before


def before_exit(clean_up: Callable[[], object]) -> None:
    """Call a function before `end_process` or `exit_now` ends the process; the last one first."""
    _watch.clean_ups.append(clean_up)


@contextlib.contextmanager
def unblocked() -> Iterator[None]:
    """Context manager: let the processes that are started in it receive signals.

    All others inherit the block. `timeout`, systemd, Slurm and a terminal that closes send signals
    to whole groups of processes; without the block Ray would end before the sweep, which needs it
    to save its trials. So a process that is started outside of this context has to be ended by
    SIGKILL.
    """
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, TAKEN)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def cut_main_thread() -> None:
    """Let the receiver raise KeyboardInterrupt in the main thread, even in a system call."""
    signal.pthread_kill(threading.main_thread().ident or 0, CUT)


def end_process(
    message: str = "interrupted", save: Callable[[], object] = lambda: None, code: int = INTERRUPTED
) -> NoReturn:
    """End this process at once, from any thread.

    Args:
        message: why; printed before the last line that `watch` was given.
        save: called first; it may take a second.
        code: the exit code.
    """
    _watch.end_process("\n".join(filter(None, [message, _watch.last_line])), save, code)


def exit_now(code: int) -> NoReturn:
    """End this process without waiting for libraries that were interrupted."""
    _call(sys.stdout.flush, sys.stderr.flush, *reversed(_watch.clean_ups))
    _watch.ending.acquire()
    os._exit(code)


def _call(*steps: Callable[[], object]) -> None:
    for step in steps:
        with contextlib.suppress(Exception):
            step()


def _not_of_cuts(unraisable: sys.UnraisableHookArgs) -> None:
    """Print no KeyboardInterrupt that a finalizer swallowed: another one follows."""
    if unraisable.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(unraisable)


def _write(message: str) -> None:
    shown = "\x1b[?25h" if os.isatty(1) else ""  # a live table hides the cursor
    with contextlib.suppress(OSError):
        os.write(1, f"{shown}{message}\n".encode(errors="replace"))


def _drop_terminal() -> None:
    """Discard what is written to a terminal that was closed, without an error."""
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            if os.isatty(descriptor):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, descriptor)
                os.close(null)

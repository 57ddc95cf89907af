"""Signals, and the end of the process: SIGINT, SIGTERM and SIGHUP stop a command at any moment.

All threads block them, and one waits for them. So they count whatever the main thread does, imports
or waits in a library that does not return; no library can take them away; and processes that are
started inherit the block. Whoever has something to save says so by `given_to`; else the process
ends at once. Imports nothing but the standard library: it is there before all else.
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
CUT = signal.SIGALRM  # to the main thread: leave what you do
INTERRUPTED = 130  # the exit code
LAST_S = 1.0  # how long the last words may take: a terminal or a pipe may be stuck


class Receiver(Protocol):
    """An object that decides what a signal does."""

    def on_signal(self, number: int) -> None:
        """Take a signal; called on the thread that watches for them."""

    def on_cut(self) -> None:
        """Raise KeyboardInterrupt in the main thread, if it may be interrupted where it is."""


class _Watch:
    """The one watch of this process."""

    def __init__(self) -> None:
        self.receiver: Receiver | None = None
        self.last_words = ""
        self.clean_ups: list[Callable[[], object]] = []
        self.ending = threading.Lock()  # of who ends the process; never released

    def start(self) -> None:
        ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN  # nohup
        taken = [number for number in TAKEN if number != signal.SIGHUP or not ignored]
        signal.pthread_sigmask(signal.SIG_BLOCK, taken)
        for number in taken:  # where `unblocked` lets them through
            signal.signal(number, lambda number, frame: self.take(number))
        signal.signal(CUT, self._on_cut)
        sys.unraisablehook = _not_of_cuts
        threading.Thread(target=self._wait, args=(taken,), name="signals", daemon=True).start()

    def _on_cut(self, number: int, frame: object) -> None:
        if self.receiver:
            self.receiver.on_cut()

    def _wait(self, taken: Sequence[signal.Signals]) -> None:
        while True:
            self.take(signal.sigwait(taken))

    def take(self, number: int) -> None:
        if number == signal.SIGHUP:
            _drop_terminal()
        if self.receiver is None:
            leave()
        self.receiver.on_signal(number)

    def leave(self, words: str, last: Callable[[], object], code: int) -> NoReturn:
        self.ending.acquire()

        def end() -> None:
            _call(last, sys.stdout.flush)
            _write(words)
            _call(*reversed(self.clean_ups))

        thread = threading.Thread(target=end, daemon=True)
        thread.start()
        thread.join(LAST_S)
        os._exit(code)


_watch = _Watch()


def watch(last_words: str) -> None:
    """Take signals from now on, to the end of the process.

    Args:
        last_words: what `leave` says in the end, if anything.
    """
    _watch.last_words = last_words
    _watch.start()


@contextlib.contextmanager
def given_to(receiver: Receiver) -> Iterator[None]:
    """Context manager: a receiver decides what a signal does."""
    before, _watch.receiver = _watch.receiver, receiver
    try:
        yield
    finally:
        _watch.receiver = before


def before_exit(clean_up: Callable[[], object]) -> None:
    """Call a function where the process ends by `leave` or `exit_now`; the last one goes first."""
    _watch.clean_ups.append(clean_up)


@contextlib.contextmanager
def unblocked() -> Iterator[None]:
    """Context manager: a process that is started in it receives signals.

    All others inherit the block. `timeout`, systemd, Slurm and a terminal that closes signal whole
    groups, and Ray, which a sweep needs to save itself, would end before it. So whoever starts a
    process outside of this has to end it by SIGKILL.
    """
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, TAKEN)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def cut_main_thread() -> None:
    """Let the receiver raise KeyboardInterrupt in the main thread, out of a system call too."""
    signal.pthread_kill(threading.main_thread().ident or 0, CUT)


def leave(
    words: str = "interrupted", last: Callable[[], object] = lambda: None, code: int = INTERRUPTED
) -> NoReturn:
    """End this process at once, from any thread.

    Args:
        words: why, said before the last words that `watch` was given.
        last: called first; it may take a second.
        code: the exit code.
    """
    _watch.leave("\n".join(filter(None, [words, _watch.last_words])), last, code)


def exit_now(code: int) -> NoReturn:
    """End this process without asking the libraries that are still in the middle of something."""
    _call(sys.stdout.flush, sys.stderr.flush, *reversed(_watch.clean_ups))
    _watch.ending.acquire()
    os._exit(code)


def _call(*steps: Callable[[], object]) -> None:
    for step in steps:
        with contextlib.suppress(Exception):
            step()


def _not_of_cuts(unraisable: sys.UnraisableHookArgs) -> None:
    """Say nothing of a cut that a finalizer swallowed: another one follows."""
    if unraisable.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(unraisable)


def _write(words: str) -> None:
    shown = "\x1b[?25h" if os.isatty(1) else ""  # a live table hides the cursor
    with contextlib.suppress(OSError):
        os.write(1, f"{shown}{words}\n".encode(errors="replace"))


def _drop_terminal() -> None:
    """Let what is written to a terminal that has gone fail no more."""
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            if os.isatty(descriptor):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, descriptor)
                os.close(null)

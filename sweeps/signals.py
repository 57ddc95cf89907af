"""Signals, and the end of the process: SIGINT, SIGTERM and SIGHUP stop a command at any moment.

A thread takes them, so that they count whatever the main thread does: imports, or waits in a
library that does not return. Whoever has something to save says so by `given_to`; else the process
ends at once. Imports nothing but the standard library: it is there before all else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn, Protocol

TAKEN = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CUT = signal.SIGALRM  # to the main thread: leave what you do
INTERRUPTED = 130  # the exit code
LAST_S = 1.0  # how long the last words may take: a terminal or a pipe may be stuck


class Receiver(Protocol):
    """Who is told of signals."""

    def on_signal(self, number: int) -> None:
        """Take a signal; called on the thread that watches for them."""

    def on_cut(self) -> None:
        """Raise KeyboardInterrupt in the main thread, if it may be interrupted where it is."""


class _Watch:
    """The one watch of this process."""

    def __init__(self) -> None:
        self.receiver: Receiver | None = None
        self.last_words = "interrupted"
        self.clean_ups: list[Callable[[], object]] = []
        self.is_started = False
        self._is_leaving = threading.Lock()

    def start(self) -> None:
        self.is_started = True
        read, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        threading.Thread(target=self._take, args=(read,), name="signals", daemon=True).start()
        take_back()
        signal.signal(CUT, self._on_cut)

    def _on_cut(self, number: int, frame: object) -> None:
        if self.receiver:
            self.receiver.on_cut()

    def _take(self, pipe: int) -> None:
        while numbers := os.read(pipe, 64):
            for number in numbers:
                if number not in TAKEN:
                    continue
                if number == signal.SIGHUP:
                    _drop_terminal()
                if self.receiver is None:
                    leave()
                self.receiver.on_signal(number)

    def leave(self, words: str, last: Callable[[], None]) -> NoReturn:
        self._is_leaving.acquire()  # for good: who comes second waits for the end

        def end() -> None:
            _call(last, sys.stdout.flush)
            _write(words)
            _call(*reversed(self.clean_ups))

        thread = threading.Thread(target=end, daemon=True)
        thread.start()
        thread.join(LAST_S)
        os._exit(INTERRUPTED)


_watch = _Watch()


def watch(last_words: str) -> None:
    """Take signals from now on, to the end of the process.

    Args:
        last_words: what `leave` says.
    """
    _watch.last_words = last_words
    _watch.start()


def take_back() -> None:
    """Install the handlers again, after a library has put its own in their place.

    They do nothing: the thread hears of signals by itself.
    """
    if _watch.is_started:
        for number in TAKEN:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
                signal.signal(number, _nothing)


@contextlib.contextmanager
def given_to(receiver: Receiver) -> Iterator[None]:
    """Let a receiver decide what a signal does, for as long as this lasts."""
    before, _watch.receiver = _watch.receiver, receiver
    try:
        yield
    finally:
        _watch.receiver = before


def before_exit(clean_up: Callable[[], object]) -> None:
    """Call a function where the process ends by `leave` or `exit_now`; the last one goes first."""
    _watch.clean_ups.append(clean_up)


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """Processes that start meanwhile never hear of our signals, wherever these are sent to.

    `timeout`, systemd, Slurm and a terminal that closes signal whole groups: what a sweep needs to
    save itself would end before it. Whoever starts such processes has to end them by SIGKILL.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, TAKEN)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def cut_main_thread() -> None:
    """Let the receiver raise KeyboardInterrupt in the main thread, out of a system call too."""
    signal.pthread_kill(threading.main_thread().ident or 0, CUT)


def leave(words: str = "", last: Callable[[], None] = lambda: None) -> NoReturn:
    """End this process at once, from any thread, with exit code 130.

    Args:
        words: said before the last words that `watch` was given.
        last: called first; it may take a second.
    """
    _watch.leave("\n".join(filter(None, [words, _watch.last_words])), last)


def exit_now(code: int) -> NoReturn:
    """End this process without asking the libraries that are still in the middle of something."""
    _call(sys.stdout.flush, sys.stderr.flush, *reversed(_watch.clean_ups))
    os._exit(code)


def _call(*steps: Callable[[], object]) -> None:
    for step in steps:
        with contextlib.suppress(Exception):
            step()


def _nothing(number: int, frame: object) -> None:
    """Stands for a handler: without one a signal has its default effect."""


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

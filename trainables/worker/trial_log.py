"""The log of a trial: its progress, and what its code prints, logs and warns. Knows no Ray.

It is a text file among the trial's artifacts, and grows when the trial is resumed. A log that
cannot be written stops no trial: a full disk is found when a checkpoint is written.
"""

from __future__ import annotations

import io
import logging
import os
import platform
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TextIO, cast

from trainables.worker.durable import TrialProgress

LOG = "log.txt"
MAX_BYTES = 1 << 20  # of a log; then only marks are added
MAX_MARK = 20_000  # characters of a mark; the middle of a longer one is left out
TIME = "%Y-%m-%dT%H:%M:%S%z"

logger = logging.getLogger(__name__)


def log_of(folder: Path) -> Path:
    """Return the path of the log in the folder of a trial."""
    return folder / "artifacts" / LOG


class TrialLog:
    """Appends to a log, whose file and folder are made at the first write."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: io.FileIO | None = None
        self._is_usable = True
        self._is_cut = False
        self._in_line = False  # true if the last line has no end yet

    def mark(self, text: str) -> None:
        """Add a line with the time about the trial itself, even to a log that is full."""
        if len(text) > MAX_MARK:
            text = f"{text[: MAX_MARK // 2]}\n[...]\n{text[-MAX_MARK // 2 :]}"
        self._append(self._line(text))

    def log_progress(self, progress: TrialProgress) -> None:
        """Add the progress of the trial."""
        if progress.resumed:
            self.mark(f"starts at step {progress.step}")
        else:
            for each in progress.evaluations:
                losses = f"val_loss {each.val_loss:.5f}"
                if each.train_loss is not None:
                    losses = f"train_loss {each.train_loss:.5f}, {losses}"
                if each.test_loss is not None:
                    losses += f", test_loss {each.test_loss:.5f}"
                self.write(self._line(f"step {each.step}: {losses} nats per character"))
        for note in progress.notes:
            self.mark(f"lost: {note}")
        if progress.done:
            self.mark("finished")

    def write(self, text: str) -> None:
        """Add text as it is; once the log is full, add one mark that says where the rest is."""
        content = text.encode(errors="backslashreplace")
        free = MAX_BYTES - self._size()
        if len(content) < free:
            self._append(text)
        elif not self._is_cut:
            self._is_cut = True
            self._append(content[: max(0, free)].decode(errors="ignore"))
            self.mark(
                f"this log is full ({MAX_BYTES:,} bytes); what is printed from here on is in the"
                f" output of process {os.getpid()} on {platform.node()} alone"
            )

    def close(self) -> None:
        """Close the file; the next write opens it again."""
        if self._file:
            self._file.close()
            self._file = None

    def _line(self, text: str) -> str:
        start = "\n" if self._in_line else ""
        return f"{start}{time.strftime(TIME)} {text.rstrip()}\n"

    def _size(self) -> int:
        file = self._open()
        return file.tell() if file else 0

    def _append(self, text: str) -> None:
        file = self._open()
        if file is None or not text:
            return
        self._in_line = not text.endswith("\n")
        try:
            file.write(text.encode(errors="backslashreplace"))
        except OSError as error:
            self._give_up(error)

    def _open(self) -> io.FileIO | None:
        if self._file is None and self._is_usable:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = io.FileIO(
                    self._path, "a"
                )  # no buffer, which a killed process would lose
            except OSError as error:
                self._give_up(error)
        return self._file

    def _give_up(self, error: OSError) -> None:
        self._is_usable = False
        self.close()
        logger.warning("%s cannot be written: %s", self._path, error)


class Output:
    """A text stream that writes to a stream of the process, and a copy into each log."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.logs: Sequence[TrialLog] = ()

    def write(self, text: str) -> int:
        for log in self.logs:
            log.write(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


class Capture:
    """Copies what this process prints, logs and warns into the logs of the trials that it trains.

    There is one for a process: code that keeps a reference to ``sys.stdout`` writes into the logs
    of the trials that are in training when it writes.
    """

    def __init__(self) -> None:
        """Set the root logger to INFO, unless its level is lower."""
        root = logging.getLogger()
        root.setLevel(min(root.level, logging.INFO))  # once: it takes Python a while
        self._streams = Output(sys.stdout), Output(sys.stderr)
        self._handler = logging.StreamHandler(self._streams[1])
        self._handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", TIME)
        )

    @contextmanager
    def into(self, logs: Sequence[TrialLog]) -> Iterator[None]:
        """Context manager: copy all output into these logs."""
        root = logging.getLogger()
        out, err = (cast("TextIO", stream) for stream in self._streams)
        for stream in self._streams:
            stream.logs = logs
        root.addHandler(self._handler)
        try:
            with redirect_stdout(out), redirect_stderr(err):
                yield
        finally:
            root.removeHandler(self._handler)
            for stream in self._streams:
                stream.logs = ()


def forget_warnings() -> None:
    """Show warnings again that Python shows once a process, so that each trial's log has them."""
    with warnings.catch_warnings():
        pass  # leaving this context clears Python's record of them

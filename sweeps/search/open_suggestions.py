"""The configurations that are being trained. All seeds of one pause, stop and end together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sweeps.records.events import SEED_FAILED_TEXT, EndCause, History, TrialEvent
from sweeps.records.records import TrialRecord
from sweeps.search.queue import Queue
from sweeps.search.study import Study
from sweeps.search.suggestion import Suggestion, Tagged

Announce = Callable[[Sequence[Tagged]], None]


class OpenSuggestions:
    """Suggestions that have trials still to be trained.

    A configuration is compared by the mean of its seeds: a trial that reaches a rung before the
    others is paused until they have come as far.
    """

    def __init__(self, studies: Mapping[str, Study], announce: Announce) -> None:
        """Begin with none.

        Args:
            studies: by label; they are asked what to prune, and learn how a suggestion ends.
            announce: called with the trials of a suggestion when their tags change.
        """
        self._studies, self._announce = studies, announce
        self._open: dict[str, Suggestion] = {}  # by the key of each of its trials

    def __bool__(self) -> bool:
        return bool(self._open)

    @property
    def studies(self) -> set[str]:
        """The labels of the studies that have open suggestions."""
        return {suggestion.study for suggestion in self._open.values()}

    def add(self, suggestion: Suggestion) -> None:
        """Open a suggestion, whose trials are queued next."""
        self._open |= dict.fromkeys(suggestion.keys, suggestion)

    def reopen(
        self,
        suggestion: Suggestion,
        records: Mapping[str, TrialRecord],
        history: History,
        queue: Queue,
    ) -> None:
        """Open a suggestion of an earlier driver, and queue those of its trials that are not done.

        Args:
            suggestion: as its study has it.
            records: of the outbox, by key.
            history: of the outbox.
            queue: for its trials.
        """
        self.add(suggestion)
        known = {key: records[key] for key in suggestion.keys if key in records}
        suggestion.started |= {key for key, record in known.items() if record.status != "WAITING"}
        over = {key for key, record in known.items() if record.status in ("FAILED", "FINISHED")}
        queue.put_paused(trial for trial in suggestion.trials if trial.key not in over)
        for key in suggestion.keys:
            for evaluation in history(key):
                suggestion.on_evaluation(key, evaluation)
        for key, record in known.items():
            if key not in self._open:
                return  # another trial has ended the configuration
            if record.status == "FAILED":
                self._fail(suggestion, key, record.cause, record.reason, queue)
            elif record.status == "FINISHED":
                self._finish(suggestion, key, queue)
        if suggestion.keys[0] in self._open:
            self._prune(suggestion, queue)
            self._resume(suggestion, queue)

    def on_event(self, event: TrialEvent, queue: Queue) -> bool:
        """Take an event of a trial; return False if its configuration is not open."""
        suggestion = self._open.get(event.key)
        if suggestion is None:
            return False
        match event.kind:
            case "started":
                suggestion.started.add(event.key)
            case "progressed":
                for evaluation in event.evaluations:
                    suggestion.on_evaluation(event.key, evaluation)
                self._prune(suggestion, queue)
                if event.key in self._open and suggestion.waits(event.key):
                    queue.pause(event.key)
            case "paused":
                self._resume(suggestion, queue)
            case "finished":
                self._finish(suggestion, event.key, queue)
            case "failed":
                self._fail(suggestion, event.key, event.cause, event.reason, queue)
        return True

    def _prune(self, suggestion: Suggestion, queue: Queue) -> None:
        """Ask the study, at each rung that all seeds have reached, whether to stop."""
        study = self._studies[suggestion.study]
        while suggestion.reached_rung is not None:
            should_prune = study.should_prune(suggestion)
            self._announce(suggestion.tagged())
            if should_prune:
                reason = study.pruning_reason(suggestion)
                study.pruned(suggestion, reason)
                self._end(suggestion, EndCause.PRUNED, reason, queue)
                return
            self._resume(suggestion, queue)

    def _resume(self, suggestion: Suggestion, queue: Queue) -> None:
        """Let trials continue that do not wait for other seeds any more."""
        queue.resume(trial for trial in suggestion.trials if not suggestion.waits(trial.key))

    def _finish(self, suggestion: Suggestion, key: str, queue: Queue) -> None:
        suggestion.ended.add(key)
        if suggestion.ended == set(suggestion.keys):
            self._studies[suggestion.study].finished(suggestion)
            self._end(suggestion, None, "", queue)

    def _fail(
        self, suggestion: Suggestion, key: str, cause: EndCause | None, reason: str, queue: Queue
    ) -> None:
        suggestion.ended.add(key)
        self._studies[suggestion.study].failed(suggestion, cause, reason)
        self._end(suggestion, EndCause.SEED_FAILED, f"{SEED_FAILED_TEXT}: {reason}", queue)

    def _end(
        self, suggestion: Suggestion, cause: EndCause | None, reason: str, queue: Queue
    ) -> None:
        """Close a suggestion, and stop those of its trials that have not ended."""
        for key in suggestion.keys:
            del self._open[key]
            if key not in suggestion.ended:
                event = TrialEvent(key, "stopped", reason=reason, cause=cause)
                queue.stop(event, has_started=key in suggestion.started)

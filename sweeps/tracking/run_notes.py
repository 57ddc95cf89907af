"""The Markdown that the pages of runs show in MLflow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from analysis.text.document import as_code, as_text, code_block
from analysis.text.links import artifact_link, artifact_source, run_link
from analysis.trials.mlflow_store import PICTURE, REPORT, report_link
from sweeps.records.events import EvaluationValues
from sweeps.records.records import SweepRecord, TrialRecord
from sweeps.tracking.views import view_link
from trainables.persistence.artifacts import SAMPLE
from trainables.worker.trial_log import LOG

SLICE = (
    "Training losses before the last step are those of the first characters of the training split,"
    " as many as the validation split has."
)


def trial_note(
    record: TrialRecord,
    evaluations: Sequence[EvaluationValues],
    title: str,
    artifacts: Path | None,
) -> str:
    """Return the page of a trial: its title, outcome, settings and sample."""
    lines = [title, ""]
    if record.status == "FAILED":
        lines += [f"Failed: {as_text(record.reason)}", ""]
    elif record.status == "STOPPED":
        lines += [f"Stopped early: {as_text(record.reason)}", ""]
    if record.status != "FAILED" and evaluations:
        last = evaluations[-1]
        lines += [
            f"Validation loss **{last['val_loss']:.5f}** nats per character"
            f"{_training_loss(last)} after {last['step']} steps.{_test_loss(last)}",
            "",
        ]
    if any(evaluation.get("train_part") == "slice" for evaluation in evaluations):
        lines += [SLICE, ""]
    lines += ["| setting | value |", "|---|---|"]
    for name, value in record.content["params"].items():
        lines.append(f"| {as_text(name)} | {as_text(value)} |")
    if record.status == "FINISHED" and artifacts and (artifacts / SAMPLE).is_file():
        text = (artifacts / SAMPLE).read_text(encoding="utf-8")
        lines += ["", "Text that it writes:", "", code_block(text)]
    return "\n".join(lines)


def _training_loss(evaluation: EvaluationValues) -> str:
    """Return the training loss of an evaluation in brackets, if there is one."""
    loss = evaluation.get("train_loss")
    return "" if loss is None else f" (training {loss:.5f})"


def _test_loss(evaluation: EvaluationValues) -> str:
    """Return a sentence with the test loss of an evaluation, if there is one."""
    loss = evaluation.get("test_loss")
    return "" if loss is None else f" Test loss **{loss:.5f}**."


def trial_title(
    record: TrialRecord,
    sweep: str,
    hosts: Collection[str],
    ids: tuple[str, str],
    artifacts: Path | None,
) -> str:
    """Return which trial it is, where it ran, and the link to its log.

    They stand in one line, because the page hides what comes later until it is unfolded.

    Args:
        record: of the trial.
        sweep: its name.
        hosts: on which the trial was trained.
        ids: of the experiment and of the run.
        artifacts: the folder with the log, if there is one.
    """
    title = f"**{as_text(record.content['name'])}** of sweep {as_code(sweep)}"
    if hosts:
        title += f", trained on {as_text(', '.join(sorted(hosts)))}"
    if artifacts is not None and (artifacts / LOG).is_file():
        title += f": [{LOG}]({artifact_link(*ids, LOG)})"
    return title


def sweep_note(
    record: SweepRecord,
    progress: str,
    ids: tuple[str, str],
    files: Collection[str],
) -> str:
    """Return the page of the sweep's own run.

    First links and the progress, because the page hides what comes later until it is unfolded; then
    the description and the picture.

    Args:
        record: of the sweep.
        progress: from `sweep_progress`.
        ids: of the experiment and of the run.
        files: the artifacts of the run.
    """
    experiment_id, run_id = ids
    links = [report_link(experiment_id, run_id)] if REPORT in files else []
    for view in ("ranking", "curves"):
        links.append(f"[{view}]({view_link('', experiment_id, view)[1:]})")
    about = [as_text(part) for part in record.content["description"].split("\n\n") if part]
    lines = [" · ".join(links), progress, *about]
    if PICTURE in files:
        lines.append(f"![val_loss]({artifact_source(run_id, PICTURE)})")
    return "\n\n".join(lines)


def sweep_progress(
    trials: Sequence[TrialRecord],
    best: TrialRecord | None,
    losses: Mapping[str, float],
    experiment_id: str,
) -> str:
    """Return how many trials are done, and which has the lowest val_loss, in Markdown.

    Args:
        trials: of the sweep.
        best: the best trial, if any has ended.
        losses: the val_loss of trials that ended, in nats per character, by key.
        experiment_id: to link the run of the best trial.
    """
    counts = Counter(trial.status for trial in trials)
    parts = [f"**{sum(trial.is_done for trial in trials)} of {len(trials)} trials are done**"]
    for status, words in {"STOPPED": "stopped early", "FAILED": "failed"}.items():
        parts += [f"{counts[status]} {words}"] if counts[status] else []
    text = ", ".join(parts) + "."
    if best is None:
        return text
    group = " of the search, not confirmed on fresh seeds" if best.is_suggested else ""
    group = " of the trials on fresh seeds" if best.is_confirming else group
    text += (
        f" Best{group}: {as_text(best.content['name'])}, validation loss"
        f" **{losses[best.key]:.4f}** nats per character"
    )
    if best.run_id:
        text += f" ([its run]({run_link(experiment_id, best.run_id)}))"
    return f"{text}."

"""Whether a difference would hold on other text of the kind, from validation losses by block.

A finished trial keeps the mean loss of some hundred contiguous blocks of the validation text, as an
artifact. The difference of two configurations in each block, as a mean over the same seeds, is a
sample over text: its spread says how far the difference on another text may be from that on this
one, with the same trained models (Miller 2024, "Adding error bars to evals": paired differences,
standard errors clustered by unit of text).

Neighbouring blocks are not independent: a scene has its own words. So they are merged into at most
`MOST_CLUSTERS` long stretches, which are the clusters, and the correlation r of neighbouring ones
is allowed for: n of them count as n (1 - r) / (1 + r) independent ones, as in a series whose
correlations fall by powers of r. On tinyshakespeare r is 0.1 to 0.45 for stretches of 2,200
characters, and the error 1.6 to 1.8 times that of blocks of 279 taken as independent.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.errors import AnalysisError
from analysis.statistics import Floats, Interval, t_quantile
from analysis.text.csv_files import read_csv
from analysis.text.shares import percent
from analysis.trials.mlflow_store import opened, store_of
from analysis.trials.table import Trials

if TYPE_CHECKING:
    from analysis.trials.mlflow_store import MlflowClient

BLOCKS = "blocks.csv"  # artifact of a finished trial, see trainables.persistence.artifacts
MOST_CLUSTERS = 50
FEWEST_CLUSTERS = 10  # with fewer stretches of text an interval says nothing
MOST_CORRELATION = 0.9  # of neighbouring clusters that is allowed for
CONFIDENCE = 0.90  # as the intervals of verdicts


@dataclass(frozen=True)
class TextBlocks:
    """The validation losses of a trial by block, in the order of the text."""

    predictions: npt.NDArray[np.int64]  # of each block
    val_loss: Floats  # mean of each block, in nats per character


@dataclass(frozen=True)
class TextInterval:
    """A difference of losses with its interval over texts; the trained models are the same."""

    interval: Interval  # in nats per character; its n is the number of clusters
    error: float  # the standard error in nats, clustered, with the correlation allowed for
    characters: int  # predictions of a cluster, on average
    correlation: float  # of neighbouring clusters
    confidence: float = CONFIDENCE


def text_interval(
    trials: Sequence[Sequence[TextBlocks]],
    weights: npt.ArrayLike = (1, -1),
    confidence: float = CONFIDENCE,
) -> TextInterval | None:
    """Return the difference of configurations, with its interval over texts.

    Args:
        trials: for each seed the trials of all configurations, which have the same text.
        weights: of the configurations; the default is first minus second.
        confidence: of the interval.

    Returns:
        None where the blocks are not those of one text, a loss is not finite, or the text is too
        short to be cut into `FEWEST_CLUSTERS`.
    """
    blocks = [each for row in trials for each in row]
    if not blocks or any(
        not np.array_equal(each.predictions, blocks[0].predictions) for each in blocks
    ):
        return None
    weight = np.asarray(weights, dtype=float)
    losses = np.array([[each.val_loss for each in row] for row in trials])  # seeds, sides, blocks
    difference = np.einsum("rsk,s->k", losses, weight) / len(losses)
    if len(difference) < FEWEST_CLUSTERS or not np.isfinite(difference).all():
        return None
    sizes, means = _clusters(blocks[0].predictions, difference)
    n, share = len(means), sizes / sizes.sum()
    mean = float(share @ means)
    away = share * (means - mean)  # of a ratio of sums; for equal clusters the error is s / sqrt(n)
    total = float(away @ away)
    correlation = float(away[1:] @ away[:-1]) / total if total else 0.0
    counted = min(max(correlation, 0.0), MOST_CORRELATION)
    independent = n * (1 - counted) / (1 + counted)
    error = math.sqrt(n / (n - 1) * total * n / independent)
    degrees = np.array(max(independent - 1, 1.0))
    half = float(t_quantile((1 + confidence) / 2, degrees)) * error
    interval = Interval(mean, mean - half, mean + half, n)
    return TextInterval(interval, error, round(sizes.mean()), correlation, confidence)


def _clusters(
    predictions: npt.NDArray[np.int64], difference: Floats
) -> tuple[npt.NDArray[np.int64], Floats]:
    """Merge neighbouring blocks; return the predictions and the mean difference of each cluster."""
    starts = np.arange(0, len(difference), math.ceil(len(difference) / MOST_CLUSTERS))
    sizes = np.add.reduceat(predictions, starts)
    return sizes, np.add.reduceat(predictions * difference, starts) / sizes


def text_interval_in_words(found: TextInterval | None) -> str:
    """Return a sentence on whether a difference would hold on other text; empty if not known."""
    if found is None:
        return ""
    interval = found.interval
    is_clear = interval.low * interval.high > 0
    return (
        f"Over other text of this kind the same models differ by {interval.mean:+.4f}"
        f" [{interval.low:+.4f}, {interval.high:+.4f}] nats ({percent(found.confidence)} %,"
        f" {interval.n} stretches of {found.characters:,} characters, the correlation of"
        f" neighbours {found.correlation:.2f}){'' if is_clear else ', so the sign may be another'}."
    )


def text_difference(
    trials: Trials,
    run_ids: Sequence[str],
    weights: npt.ArrayLike = (1, -1),
    tracking_uri: str | None = None,
    confidence: float = CONFIDENCE,
) -> TextInterval | None:
    """Read the artifacts of runs, and return the `text_interval` of their difference.

    Args:
        trials: from `load_trials`.
        run_ids: for each seed the runs of all sides, one seed after another, as in
            `Contrast.run_ids`.
        weights: of the sides.
        tracking_uri: of the MLflow store; None takes what `load_trials` does.
        confidence: of the interval.

    Returns:
        None where a run has no such artifact, as those of an earlier version or of a CSV file, and
        where `text_interval` returns None.

    Raises:
        AnalysisError: the store does not answer, or an artifact is damaged.
    """
    (found,) = text_differences(trials, [Difference(run_ids, weights, confidence)], tracking_uri)
    return found


class Difference(NamedTuple):
    """A difference of runs, as `text_difference` takes it."""

    run_ids: Sequence[str]
    weights: npt.ArrayLike
    confidence: float


def text_differences(
    trials: Trials, asked: Sequence[Difference], tracking_uri: str | None = None
) -> list[TextInterval | None]:
    """Return the `text_difference` of several differences; the store is opened once.

    Raises:
        AnalysisError: the store does not answer, or an artifact is damaged.
    """
    if not trials.sweep or not any(each.run_ids for each in asked):
        return [None] * len(asked)
    known: dict[str, TextBlocks | None] = {}
    with opened(tracking_uri or store_of(None), trials.experiment) as (client, _):
        return [_interval_of(client, each, known) for each in asked]


def _interval_of(
    client: MlflowClient, asked: Difference, known: dict[str, TextBlocks | None]
) -> TextInterval | None:
    """Return the interval of a difference; `known` gets the artifacts that are read for it."""
    run_ids, sides = asked.run_ids, np.size(asked.weights)
    if not run_ids or len(run_ids) % sides:
        return None
    found = []
    for run_id in run_ids:
        if run_id not in known:
            known[run_id] = _blocks_of(client, run_id)
        if (blocks := known[run_id]) is None:
            return None
        found.append(blocks)
    rows = [found[first : first + sides] for first in range(0, len(found), sides)]
    return text_interval(rows, asked.weights, asked.confidence)


def _blocks_of(client: MlflowClient, run_id: str) -> TextBlocks | None:
    """Return the losses by block of a run; None if it has none."""
    if all(file.path != BLOCKS for file in client.list_artifacts(run_id)):
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(client.download_artifacts(run_id, BLOCKS, folder))
        return read_blocks(path, f"{BLOCKS} of run {run_id}")


def read_blocks(path: Path, source: str) -> TextBlocks:
    """Read the losses by block of a trial.

    Args:
        path: of the file.
        source: what to call it in messages.

    Raises:
        AnalysisError: it is no such table.
    """
    damaged = AnalysisError(f"{source} is damaged: a row is not a count and a loss")
    try:
        numbers = read_csv(path).apply(pd.to_numeric, errors="coerce")
    except AnalysisError:
        raise damaged from None
    if list(numbers.columns) != ["predictions", "val_loss"] or numbers.isna().any(axis=None):
        raise damaged
    counts = numbers["predictions"]
    if (counts < 1).any() or (counts % 1 > 0).any():
        raise damaged
    return TextBlocks(counts.to_numpy(np.int64), numbers["val_loss"].to_numpy(float))

"""Measurements of BabyGPT v1 and the statistical bigram, from the runs of a sweep.

This package loads trained models and corpora, so it imports
`bigram_models` and `trainables`, which the rest of `analysis` does not (decision 7).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from analysis.comparison.cost import ModelCost, cost_of, table_of
from analysis.comparison.counting import Counted, time_counting
from analysis.comparison.rank import (
    LARGEST_V,
    Factors,
    cross_entropy,
    likeliest,
    likeliest_by_rank,
    nearest_factors,
    pair_counts,
)
from analysis.errors import AnalysisError
from analysis.text.messages import first_line
from analysis.trials.loading import load_trials
from analysis.trials.mlflow_store import opened
from analysis.trials.table import Trials
from bigram_models import FactorizedBigram, LanguageModel, conditional_entropy, count_pairs
from trainables.config import TrialConfig
from trainables.data.corpus import Corpus, load_corpus
from trainables.errors import UserError
from trainables.persistence.artifacts import (
    CONFIGURATION,
    WEIGHTS,
    first_prompt,
    load_model,
    sample_text,
)
from trainables.training.timing import devices, load_in_words, one_thread

BABY, COUNT, TABLE = "BabyGPT v1", "statistical bigram", "trained table"
BABY_WIDTH = 32
SMOOTHING = 1.0
SAMPLE_CHARACTERS = 300
SAMPLE_SEED = 1337
RUNS = "`sweeps run compare`"
FREE = {"n_embd", "seed"}  # what may differ between the runs of a width


RunRow = Mapping[str, Any]  # of `Trials.table`; Any: columns have several types


@dataclass(frozen=True)
class Subject:
    """A trained model: its run, its cost, and some text that it writes."""

    name: str
    run: RunRow  # its row of `Trials.table`
    trial: TrialConfig
    model: LanguageModel
    logits: Tensor  # (V, V)
    cost: ModelCost
    prompt: str
    sample: str


@dataclass(frozen=True)
class Comparison:
    """Measurements of both models; losses in nats per character.

    ``widths`` has a row for each n_embd of the factorised runs: ``n_embd``, ``weights``, ``seeds``,
    ``train_loss`` and ``val_loss`` (means over seeds), and, where V is at most `LARGEST_V`,

    * ``floor``: the least training loss that was found for the width (`likeliest_by_rank`);
    * ``svd``, ``svd_rows``: the training loss of the count model's logits cut to the width, rows
      weighted by frequency, or all alike; ``svd_val`` the first on validation;
    * ``fit_val``: the validation loss of the factorisation whose predictions come closest to
      the count model's (least mean Kullback-Leibler divergence).
    """

    trials: Trials
    corpus: Corpus
    subjects: tuple[Subject, ...]  # BABY, COUNT, and TABLE where a run of it is there
    entropy: float  # conditional, of the training split: the floor of every bigram model
    unseen: int  # pairs of the validation split that the training split does not have
    counted: Sequence[Counted]
    widths: pd.DataFrame
    polished: float | None  # training loss of BABY's weights after full-batch L-BFGS
    load: str

    def subject(self, name: str) -> Subject:
        """Return the subject with this name."""
        return next(subject for subject in self.subjects if subject.name == name)

    @property
    def floors_known(self) -> bool:
        """True if the vocabulary was small enough to look for the least losses."""
        return "floor" in self.widths


def comparison_of(
    experiment: str,
    tracking_uri: str,
    corpora: Path,
    progress: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Measure the runs of an experiment, such as the preset ``compare`` makes; takes a minute.

    Args:
        experiment: its name.
        tracking_uri: of the MLflow store.
        corpora: the cache of downloaded corpora.
        progress: called with a line about each measurement, before it starts.

    Raises:
        AnalysisError: a run, its model or the corpus is missing, or the runs differ in more than
            width and seed.
    """
    busy = load_in_words()
    progress(f"reading the runs of {experiment}")
    trials = _trials(experiment, tracking_uri)
    chosen = _chosen(trials)
    corpus = _corpus(trials, corpora)
    counts = _Counts.of(corpus)
    with one_thread():
        subjects = {}
        for name, run in chosen.items():
            progress(f"timing {name} (run {run['run_id']}), its training and its forward pass")
            subjects[name] = _subject(name, run, trials, tracking_uri, corpus)
        widths, polished = _factorised(trials), None
        if corpus.vocab_size <= LARGEST_V:
            ranks = ", ".join(map(str, widths["n_embd"]))
            progress(f"looking for the lowest loss of each n_embd ({ranks}), from the counts")
            widths = widths.join(_floors(widths["n_embd"], subjects[COUNT].logits, counts))
            polished = _polished(subjects[BABY].model, counts.train)
        progress("timing the ways of counting")
        ways = time_counting(counts.tokens, corpus.vocab_size, devices())
    unseen = int(counts.validation[counts.train == 0].sum())
    found = tuple(subjects.values())
    return Comparison(trials, corpus, found, counts.entropy, unseen, ways, widths, polished, busy)


@dataclass(frozen=True)
class _Counts:
    """Tokens and pair counts of a corpus."""

    tokens: Tensor  # (N,) of the training split
    train: Tensor  # (V, V) pair counts
    validation: Tensor  # (V, V) pair counts
    entropy: float  # conditional, of the training split, in nats

    @staticmethod
    def of(corpus: Corpus) -> _Counts:
        """Count the pairs of a corpus."""
        V = corpus.vocab_size
        train_N, validation_N = (torch.tensor(s) for s in (corpus.train, corpus.validation))
        entropy = conditional_entropy(*count_pairs(train_N, V), V)
        return _Counts(train_N, pair_counts(train_N, V), pair_counts(validation_N, V), entropy)


def _trials(experiment: str, tracking_uri: str) -> Trials:
    try:
        return load_trials(experiment, tracking_uri)
    except AnalysisError as error:
        raise AnalysisError(f"{error}\nThe runs to compare come from {RUNS}") from None


def _chosen(trials: Trials) -> dict[str, RunRow]:
    """Return the runs to compare, by the names of the subjects."""
    chosen = {BABY: _pick(trials, "factorized", "n_embd", BABY_WIDTH)}
    chosen[COUNT] = _pick(trials, "count", "smoothing", SMOOTHING)
    if len(_rows(trials, "bigram")):
        chosen[TABLE] = _pick(trials, "bigram")
    return chosen


def _pick(trials: Trials, variant: str, setting: str = "", value: float = 0) -> RunRow:
    """Return the run of a variant with a setting; of several seeds the first."""
    rows = _rows(trials, variant)
    wanted = variant
    if setting:
        wanted += f" with {setting}={value:g}"
        rows = rows[rows[setting].eq(value).fillna(False)] if setting in rows else rows.iloc[:0]
    if rows.empty:
        raise AnalysisError(
            f"experiment {trials.experiment!r} has no finished trial of {wanted}; {RUNS} makes one"
        )
    return {str(name): cell for name, cell in rows.sort_values(["seed", "key"]).iloc[0].items()}


def _rows(trials: Trials, variant: str) -> pd.DataFrame:
    """Return the comparable trials of a variant."""
    rows = trials.comparable
    return rows[rows["variant"] == variant] if "variant" in rows else rows.iloc[:0]


def _factorised(trials: Trials) -> pd.DataFrame:
    """Return the trained losses by width."""
    rows = _rows(trials, "factorized")
    others = [name for name in trials.params if name not in FREE and rows[name].nunique() > 1]
    if others:
        raise AnalysisError(
            f"the factorized trials of {trials.experiment!r} differ in {', '.join(others)} as well"
            " as in n_embd; a comparison of widths wants one value of each"
        )
    groups = rows.groupby(rows["n_embd"].astype(int))
    means = groups[["train_loss", "val_loss"]].mean().astype(float)
    return means.assign(seeds=groups.size()).reset_index()


def _corpus(trials: Trials, corpora: Path) -> Corpus:
    """Return the corpus of the runs, by its name and the digest of its text."""
    rows = trials.comparable
    names, digests = set(rows["corpus"]), set(rows["corpus_digest"])
    if len(names) != 1 or len(digests) != 1:
        raise AnalysisError(
            f"the trials of {trials.experiment!r} were trained on several texts"
            f" ({', '.join(sorted(names))}); a comparison wants one"
        )
    (name,), (digest,) = names, digests
    tests = set(rows["corpus_test"]) if "corpus_test" in rows else {0.0}
    if len(tests) != 1:
        raise AnalysisError(
            f"the trials of {trials.experiment!r} have several test splits; a comparison wants one"
        )
    try:
        corpus = load_corpus(name, corpora, float(tests.pop()))
    except UserError as error:
        raise AnalysisError(
            f"{error}\nThe text of the runs is needed; run this in the directory of `sweeps run`"
        ) from None
    if corpus.digest != digest:
        raise AnalysisError(
            f"corpus {name!r} is not the text that {trials.experiment!r} was trained on: its"
            f" sha256 is {corpus.digest[:12]}, the runs have {digest[:12]}; put the old text back,"
            " or run the sweep again"
        )
    return corpus


def _subject(name: str, run: RunRow, trials: Trials, tracking_uri: str, corpus: Corpus) -> Subject:
    with tempfile.TemporaryDirectory() as folder:
        _fetch(trials.experiment, run["run_id"], folder, tracking_uri)
        try:
            model, vocabulary, trial = load_model(Path(folder))
        except UserError as error:
            raise AnalysisError(f"the model of run {run['run_id']}: {error}") from None
    prompt = first_prompt(vocabulary)
    return Subject(
        name=name,
        run=run,
        trial=trial,
        model=model,
        logits=table_of(model, corpus.vocab_size),
        cost=cost_of(model, trial, corpus, devices()),
        prompt=prompt,
        sample=sample_text(model, vocabulary, prompt, SAMPLE_CHARACTERS, SAMPLE_SEED),
    )


def _fetch(experiment: str, run_id: str, folder: str, tracking_uri: str) -> None:
    """Copy the files of a trained model from the artifacts of its run."""
    with opened(tracking_uri, experiment) as (client, _):
        try:
            for file in (CONFIGURATION, WEIGHTS):
                client.download_artifacts(run_id, file, folder)
        except OSError as error:
            raise AnalysisError(
                f"run {run_id} of {experiment!r} has no trained model: {first_line(error)}"
            ) from None


def _floors(widths: pd.Series, table_VV: Tensor, counts: _Counts) -> pd.DataFrame:
    """Return the losses of the best factorisation of each width, from the counts alone.

    Args:
        widths: n_embd of each.
        table_VV: logits of the count model.
        counts: of the corpus.

    Returns:
        The columns of `Comparison.widths` from ``floor`` on.
    """
    ranks = [int(width) for width in widths]
    train_VV, validation_VV = counts.train, counts.validation
    row_V = train_VV.sum(1)
    best = likeliest_by_rank(train_VV, ranks)
    # The count model's own predictions, each row as often as the text has it.
    close = likeliest_by_rank(row_V[:, None] * table_VV.softmax(1), ranks, near=best)
    rows = []
    for rank in ranks:
        by_frequency = nearest_factors(table_VV, rank, row_V).logits
        all_alike = nearest_factors(table_VV, rank, torch.ones_like(row_V)).logits
        rows.append(
            {
                "floor": cross_entropy(best[rank].logits, train_VV),
                "svd": cross_entropy(by_frequency, train_VV),
                "svd_rows": cross_entropy(all_alike, train_VV),
                "svd_val": cross_entropy(by_frequency, validation_VV),
                "fit_val": cross_entropy(close[rank].logits, validation_VV),
            }
        )
    return pd.DataFrame(rows, index=widths.index)


def _polished(model: LanguageModel, train_VV: Tensor) -> float:
    """Return the training loss that L-BFGS reaches from trained weights."""
    assert isinstance(model, FactorizedBigram)
    weights = (model.embed_VD, model.head.weight, model.head.bias)
    start = Factors(*(each.detach().double() for each in weights))
    return cross_entropy(likeliest(train_VV, start).logits, train_VV)

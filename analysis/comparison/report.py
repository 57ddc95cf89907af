"""The report of the comparison: its tables, their provenance, and conclusions."""

from __future__ import annotations

import platform

import pandas as pd
import torch

from analysis.comparison.conclusions import SHAPES, conclusions
from analysis.comparison.cost import BATCHES
from analysis.comparison.figure import loss_by_width
from analysis.comparison.measure import BABY, COUNT, SAMPLE_SEED, Comparison, Subject
from analysis.comparison.rank import (
    ITERATIONS,
    LARGEST_V,
    RANDOM_STARTS,
    cross_entropy,
    pair_counts,
)
from analysis.text.document import Report, as_code, as_text, code_block, markdown_table
from bigram_models import FittedModel
from trainables.training.timing import device_name, devices, format_seconds

TIMES = (
    "A time is the median of repeated calls after one that does not count, with the quartiles in"
    " brackets. All models read the same random characters in a forward pass, sequences x"
    " characters.\n"
)
LOOPS = (
    "All ways gave the same table. The clock starts when a loop has the text as a Python list, and"
    " the others have it as a tensor on the device. The loop over the elements of a tensor has only"
    " the start of the text. The vectorised way stands there twice: as a histogram of pair codes,"
    " and as `count_pairs`, which goes on to the list of the pairs that occur.\n"
)
DEFINITIONS = f"""\
The factorisations come from the counts, without training:

- *best found* is the least cross entropy on the training counts that any E W^T + 1 b^T of that
  width was found to have, by L-BFGS on all counts at once: {ITERATIONS:,} iterations from each of
  {RANDOM_STARTS} random starts and from the answer of the width before. The search is not convex,
  so the true best lies between this and the floor.
- *closest to the count model* is the same search for the predictions of the smoothed count model:
  the least mean Kullback-Leibler divergence, each row as often as the text has it.
- *SVD* takes the count model's log-probabilities, each row less its mean, which a softmax does not
  see; less the mean row, which is the bias; and keeps the D largest singular values. That is the
  best in the sense of least squares, rows weighted by frequency or all alike, and not in the sense
  of the loss. At full rank it is the smoothed count model itself.
"""


def report_of(found: Comparison) -> Report:
    """Write the report."""
    figure = loss_by_width(found)
    title = f"{BABY} against the {COUNT}"
    parts = [
        f"# {title}\n",
        _introduction(found),
        "## What came out\n",
        _bullets(conclusions(found)),
        "## Side by side\n",
        markdown_table(side_by_side(found)),
        TIMES,
        "## What they write\n",
        *(_sample(subject) for subject in found.subjects),
        "## Counting, three ways\n",
        markdown_table(
            counting(found), {"ns per character": 1, "times the fastest": 1}, marked_up=["way"]
        ),
        LOOPS,
        "## Does the factorisation come to the same?\n",
        figure.markdown,
        *_equivalence(found),
        "## Where the numbers come from\n",
        _bullets(provenance(found)),
    ]
    return Report(title, "\n".join(parts), {figure.name: figure})


def side_by_side(found: Comparison) -> pd.DataFrame:
    """Return a column for each model, a row for each property."""
    subjects = found.subjects
    rows: dict[str, list[str]] = {
        "model": [_settings(subject) for subject in subjects],
        "learnt": [subject.cost.learnt for subject in subjects],
        "by": [_method(found, subject) for subject in subjects],
        "learning, in the run": [
            format_seconds(subject.run["training_seconds"]) for subject in subjects
        ],
    }
    for kind in (device.type for device in devices()):
        rows[f"learning, here, {kind}"] = [_learning(subject, kind) for subject in subjects]
        for shape, batch in zip(SHAPES, BATCHES, strict=True):
            times = [str(subject.cost.forward[kind, batch]) for subject in subjects]
            rows[f"forward pass of {shape}, {kind}"] = times
    counts_VV = pair_counts(torch.tensor(found.corpus.validation), found.corpus.vocab_size)
    rows |= {
        "memory, the model": [_size(subject.cost.kept_bytes) for subject in subjects],
        "memory, to learn it": [
            f"{_size(subject.cost.learning_bytes)} ({subject.cost.holds})" for subject in subjects
        ],
        "train_loss": [f"{subject.run['train_loss']:.5f}" for subject in subjects],
        "train_loss above the floor": [
            f"{subject.run['train_loss'] - found.entropy:.5f}" for subject in subjects
        ],
        "val_loss": [f"{subject.run['val_loss']:.5f}" for subject in subjects],
        "val_loss, from the stored model": [
            f"{cross_entropy(subject.logits, counts_VV):.5f}" for subject in subjects
        ],
        "run": [subject.run["run_id"] for subject in subjects],
    }
    names = [subject.name for subject in subjects]
    return pd.DataFrame.from_dict(rows, orient="index", columns=names).reset_index(names="")


def counting(found: Comparison) -> pd.DataFrame:
    """Return the ways of counting, with times relative to the fastest on as many characters."""
    fastest = {
        way.tokens: min(each.ns_per_token for each in found.counted if each.tokens == way.tokens)
        for way in found.counted
    }
    return pd.DataFrame(
        {
            "way": way.way,
            "device": way.device,
            "characters": way.tokens,
            "time": str(way.timing),
            "repeats": len(way.timing.seconds),
            "ns per character": way.ns_per_token,
            "times the fastest": way.ns_per_token / fastest[way.tokens],
        }
        for way in found.counted
    )


def provenance(found: Comparison) -> list[str]:
    """Return sentences on where the numbers come from, and their limits."""
    rows, corpus = found.trials.comparable, found.corpus
    seeds = sorted(set(rows["seed"]))
    evaluation = ", ".join(sorted(set(rows["evaluation"].astype(str))))
    facts = [
        f"Losses and the times called *in the run*: the {len(rows)} finished runs of the sweep"
        f" {as_text(found.trials.experiment)}, of code version {_listed(rows['code_version'])}, on"
        f" {_listed(rows['hardware'])}, with {as_text(evaluation)} evaluation. These times leave"
        " evaluation out; other trials may have run beside.",
        f"All else: {as_code(f'analysis compare {found.trials.experiment}')} on "
        + "; ".join(f"{device.type}: {device_name(device)}" for device in devices())
        + f"; PyTorch {torch.__version__} with one thread, Python {platform.python_version()},"
        f" {platform.system()}. Load of the machine: {found.load}.",
        f"Corpus {as_text(corpus.name)}: {len(corpus.train):,} characters for training,"
        f" {len(corpus.validation):,} for validation, V = {corpus.vocab_size}, sha256"
        f" `{corpus.digest}`.",
    ]
    if len(seeds) == 1:
        facts.append(
            f"All runs have one seed, {seeds[0]}: how far a trained loss moves by chance is not"
            " known here. More seeds (`replicates=5` for `sweeps run`) would tell."
        )
    else:
        facts.append(
            f"Seeds {', '.join(map(str, seeds))}: losses by width are means; side by side stand the"
            " models of the first seed."
        )
    if evaluation != "exact":
        facts.append(
            "The runs' losses are means over random batches: they differ from exact ones by"
            " sampling noise, and may even lie below the floor."
        )
    return facts


def _introduction(found: Comparison) -> str:
    return (
        f"Both predict a character of {as_text(found.corpus.name)} from the one before it, out of"
        f" V = {found.corpus.vocab_size}: {BABY} by a product of two matrices of width D ="
        f" {found.subject(BABY).run['n_embd']} that gradient descent trains, the {COUNT} by"
        " counting which character follows which. Losses are in nats per character. No model that"
        f" sees one character can have a training loss below {found.entropy:.4f}, the conditional"
        " entropy of the training split, called the floor here.\n"
    )


def _equivalence(found: Comparison) -> list[str]:
    widths = found.widths
    if not found.floors_known:
        table = widths[["n_embd", "seeds", "train_loss", "val_loss"]]
        return [
            markdown_table(table, {"train_loss": 5, "val_loss": 5}),
            f"The factorisations are computed directly for V up to {LARGEST_V} only; here V is"
            f" {found.corpus.vocab_size}.\n",
        ]
    training = pd.DataFrame(
        {
            "D": widths["n_embd"],
            "seeds": widths["seeds"],
            "trained": widths["train_loss"],
            "best found": widths["floor"],
            "width: best - floor": widths["floor"] - found.entropy,
            "optimisation: trained - best": widths["train_loss"] - widths["floor"],
            "SVD, by frequency": widths["svd"],
            "SVD, rows alike": widths["svd_rows"],
        }
    )
    validation = pd.DataFrame(
        {
            "D": widths["n_embd"],
            "trained": widths["val_loss"],
            "closest to the count model": widths["fit_val"],
            "SVD, by frequency": widths["svd_val"],
        }
    )
    return [
        f"The training loss; the floor is {found.entropy:.5f}. A width above V - 1 ="
        f" {found.corpus.vocab_size - 1} can do no more than V - 1, and has its values.\n",
        markdown_table(training, dict.fromkeys(training.columns[2:], 5)),
        f"The validation loss; the {COUNT} has"
        f" {found.subject(COUNT).run['val_loss']:.5f}{_unsmoothed(found)}.\n",
        markdown_table(validation, dict.fromkeys(validation.columns[1:], 5)),
        DEFINITIONS,
    ]


def _unsmoothed(found: Comparison) -> str:
    if not found.unseen:
        return ""
    return (
        f", and without smoothing an infinite one: {found.unseen:,} pairs of the validation split"
        " do not occur in the training split"
    )


def _sample(subject: Subject) -> str:
    prompt = as_code(repr(subject.prompt))
    return (
        f"{subject.name}, after the prompt {prompt} with seed {SAMPLE_SEED}:\n\n"
        f"{code_block(subject.sample)}"
    )


def _settings(subject: Subject) -> str:
    settings = subject.trial.model.to_dict()
    variant = str(settings.pop("variant"))
    return " ".join([variant, *(f"{name}={value}" for name, value in settings.items())])


def _method(found: Comparison, subject: Subject) -> str:
    if isinstance(subject.model, FittedModel):
        return f"one pass of counting over {len(found.corpus.train) - 1:,} pairs"
    training = subject.trial.training
    read = training.max_steps * training.batch_size * training.block_size
    return (
        f"{training.max_steps:,} updates of AdamW, lr {training.learning_rate:g}, of"
        f" {training.batch_size} x {training.block_size} pairs: {read:,} in all,"
        f" {read / len(found.corpus.train):.2g} times the text"
    )


def _learning(subject: Subject, kind: str) -> str:
    timing = subject.cost.learning[kind]
    if isinstance(subject.model, FittedModel):
        return str(timing)
    updates = subject.trial.training.max_steps
    return f"{format_seconds(timing.median_s * updates)}: {updates:,} updates of {timing}"


def _size(size: int) -> str:
    for unit, unit_bytes in (("MiB", 2**20), ("KiB", 2**10)):
        if size >= unit_bytes:
            return f"{size / unit_bytes:,.1f} {unit}"
    return f"{size} B"


def _bullets(sentences: list[str]) -> str:
    return "".join(f"- {sentence}\n" for sentence in sentences)


def _listed(values: pd.Series) -> str:
    return as_text(", ".join(sorted({str(value) for value in values if value}))) or "unknown"

"""A trial's configuration and its identity."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from pydantic import NonNegativeInt, PositiveFloat, model_validator

from bigram_models import FittedModel
from trainables.errors import validate
from trainables.precision import Precision
from trainables.settings import Count, Frozen, Seed
from trainables.variants import ModelConfig, parse_model

RESULT_VERSION = 3  # bumped when a change of the code alters the losses of a configuration
# exact: every token of both splits once. sampled: random batches from a separate stream.
# published: random batches from the stream of the training batches and the initial values, before
# the steps 0, eval_every, ... and the last; so seed 1337 draws the random numbers of the study.
Evaluating = Literal["exact", "sampled", "published"]
# The part of the training split that an exact evaluation reads before the last step; after it, all.
# slice: its first tokens, as many as the validation split has. exact: all. end: none.
EvaluatingTrain = Literal["slice", "exact", "end"]
Schedule = Literal["constant", "cosine"]
MOST_EVALUATIONS = 1_000_000  # of a trial: each is stored, and sent to MLflow


class TrainingConfig(Frozen):
    """Everything about optimisation and evaluation that decides a result.

    ``evaluate_train`` alone decides none: with each of its values a trial has the same weights,
    validation losses, last training loss, and key.
    """

    block_size: Count = 8  # tokens T of a training sequence, and the longest context
    batch_size: Count = 64  # sequences per step
    learning_rate: PositiveFloat = 1e-2  # of AdamW, the highest of its schedule
    schedule: Schedule = "constant"  # cosine: half a wave down to zero (Loshchilov & Hutter 2017)
    warmup_steps: NonNegativeInt = 0  # in which the rate rises linearly
    precision: Precision = "float32"  # of the matrix products of steps; evaluation has float32
    max_steps: Count = 5_000  # optimizer updates
    eval_every: Count = 500  # steps; the last step is always evaluated
    evaluation: Evaluating = "exact"
    evaluate_train: EvaluatingTrain = "slice"  # if evaluation is exact
    eval_batches: Count = 200  # random batches per split, unless evaluation is exact

    @model_validator(mode="after")
    def _steps_can_be(self) -> TrainingConfig:
        if self.max_steps // self.eval_every > MOST_EVALUATIONS:
            raise ValueError(
                f"max_steps={self.max_steps} with eval_every={self.eval_every} are more than"
                f" {MOST_EVALUATIONS:,} evaluations; give a larger eval_every"
            )
        if self.warmup_steps >= self.max_steps:
            raise ValueError(
                f"warmup_steps={self.warmup_steps} must be less than max_steps={self.max_steps}"
            )
        return self

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of the update that follows `step` updates."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        if self.schedule == "constant":
            return self.learning_rate
        progress = (step - self.warmup_steps) / (self.max_steps - self.warmup_steps)
        return self.learning_rate * (1 + math.cos(math.pi * progress)) / 2

    @property
    def last_step(self) -> int:
        """Updates before the last evaluation: the study evaluated before its last update."""
        return self.max_steps - 1 if self.evaluation == "published" else self.max_steps

    @property
    def train_part(self) -> EvaluatingTrain:
        """Part of the training split that an evaluation before the last step reads."""
        return self.evaluate_train if self.evaluation == "exact" else "exact"

    def deciding(self, fitted: bool) -> dict[str, object]:
        """Return the settings that can change a loss, for a fitted or a trained model.

        Settings that were added later are left out at their defaults: older keys stay valid.
        """
        idle = {"evaluate_train"}
        idle |= {"eval_batches"} if self.evaluation == "exact" else set()
        later = {"schedule": "constant", "warmup_steps": 0, "precision": "float32"}
        idle |= {name for name, value in later.items() if getattr(self, name) == value}
        if fitted:
            idle |= {*later, "learning_rate", "max_steps", "eval_every"}
            idle |= {"batch_size"} if self.evaluation == "exact" else set()
        return self.model_dump(exclude=idle)


# Names of settings that no model may have.
RESERVED = {"variant", "seed", "corpus", "corpus_test", *TrainingConfig.model_fields}


@dataclass(frozen=True)
class TrialConfig:
    """The configuration of a trial: model, training, seed and corpus.

    ``corpus_digest`` is the sha256 of the text; ``corpus`` is only its name. ``corpus_test`` is the
    share of the text that is its test split. A trial that is tested has the loss on it as well, by
    its final weights; that decides nothing.
    """

    model: ModelConfig
    training: TrainingConfig
    seed: int
    corpus: str
    corpus_digest: str
    corpus_test: float = 0.0
    is_tested: bool = False

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits that identify the result: equal keys have equal losses.

        Only training losses before the last step may differ, by ``evaluate_train``.
        """
        deciding = {
            "result_version": RESULT_VERSION,
            "variant": self.model.variant,
            "model": self.model.values,
            "code": self.model.code_digest,
            "training": self.training.deciding(issubclass(self.model.model_class, FittedModel)),
            "seed": self.seed,
            "corpus": self.corpus_digest,
            **self._split,
        }
        canonical = json.dumps(deciding, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def _split(self) -> dict[str, object]:
        """The share of the test split, where there is one: keys without it are older."""
        return {"corpus_test": self.corpus_test} if self.corpus_test else {}

    @cached_property
    def flat(self) -> dict[str, object]:
        """Settings by their short names, as in MLflow's params and in tables.

        ``evaluate_train`` is not among them: trials that differ in it alone are the same.
        """
        return {
            "variant": self.model.variant,
            **self.model.values,
            **self.training.model_dump(exclude={"evaluate_train"}),
            "seed": self.seed,
            "corpus": self.corpus,
            **self._split,
        }

    def with_seed(self, seed: int, where: str = "trial") -> TrialConfig:
        """Return this trial with another seed.

        Raises:
            UserError: the seed is negative or too large.
        """
        seed = validate(Seed, {"seed": seed}, where).seed
        return replace(self, seed=seed)

    def to_dict(self) -> dict[str, object]:
        """Return plain data that `from_dict` reads, for an artifact or a worker."""
        return {
            "model": self.model.to_dict(),
            "training": self.training.model_dump(),
            "seed": self.seed,
            "corpus": self.corpus,
            "corpus_digest": self.corpus_digest,
            **self._split,
            **({"is_tested": True} if self.is_tested else {}),
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any], where: str = "trial") -> TrialConfig:  # Any: validated
        """Read the plain data of `to_dict`.

        Args:
            data: of a trial.
            where: its place, for messages.

        Raises:
            UserError: a setting is unknown or has a wrong value.
        """
        return TrialConfig(
            model=parse_model(data["model"], f"{where}.model", RESERVED),
            training=validate(TrainingConfig, data["training"], f"{where}.training"),
            seed=validate(Seed, {"seed": data["seed"]}, where).seed,
            corpus=data["corpus"],
            corpus_digest=data["corpus_digest"],
            corpus_test=data.get("corpus_test", 0.0),
            is_tested=data.get("is_tested", False),
        )


def canonical(value: object) -> str:
    """Return the only spelling of a setting: MLflow refuses to log 0.001 where it has 1e-3."""
    return repr(value) if isinstance(value, float) else str(value)

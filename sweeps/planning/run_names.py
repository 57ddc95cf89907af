"""Names of runs, and the groups that share a colour, from the settings that differ in a plan."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from sweeps.planning.study_spec import short_name
from sweeps.spec.search_spec import Parameter
from trainables.config import TrialConfig, canonical

SHORT = {  # in the names of runs
    "block_size": "block",
    "batch_size": "batch",
    "learning_rate": "lr",
    "max_steps": "steps",
    "warmup_steps": "warmup",
}


def varying_settings(trials: Sequence[TrialConfig]) -> tuple[str, ...]:
    """Return the settings that differ between trials, those with text values first.

    A setting that only some trials have differs too.
    """
    flats = [trial.flat for trial in trials]
    settings = [trial.model.to_dict() for trial in trials]  # before the training's
    names = dict.fromkeys(itertools.chain(*settings, *flats))
    differing = [n for n in names if len({repr(flat.get(n)) for flat in flats}) > 1]
    return tuple(sorted(differing, key=lambda name: not _is_text(name, trials)))


@dataclass(frozen=True)
class RunNames:
    """Names and kinds of the runs of a plan.

    Attributes:
        trials: of the plan, with examples of what its search may suggest.
        varying: the settings that differ between them.
        spaces: what the search chooses in each arm, by dotted path.
    """

    trials: Sequence[TrialConfig]
    varying: Sequence[str]
    spaces: Sequence[Mapping[str, Parameter]]

    def run_name(self, trial: TrialConfig) -> str:
        """Return what differs, in a few words, such as ``attention rope n_embd=128 block=64``."""
        variant = trial.model.variant
        texts = {"variant": self._short_variants.get(variant, variant)}
        shown = [name for name in self.varying if name in trial.flat]
        words = [_in_a_word(name, texts.get(name, trial.flat[name])) for name in shown]
        return " ".join(words) or texts["variant"]

    def kind(self, trial: TrialConfig) -> int:
        """Return the number of the group of trials that share their text settings, from 0.

        Only settings count that differ in the plan and that no search tunes. Where none of them is
        text, the first one counts; where there is none at all, the first text that the search
        tunes. A trial of no group is in group 0.
        """
        return self._kinds.get(self._kind_values(trial), 0)

    @cached_property
    def _short_variants(self) -> Mapping[str, str]:
        """For ``MODULE:CLASS`` the class alone, where no other variant has a class of its name."""
        variants = {trial.model.variant for trial in self.trials}
        classes = {variant: variant.rpartition(":")[2] for variant in variants}
        counts = Counter(classes.values())
        return {variant: name for variant, name in classes.items() if counts[name] == 1}

    @cached_property
    def _kinds(self) -> Mapping[str, int]:
        tuned = self._tuned_texts.get(self._kind_names[0], []) if self._kind_names else []
        values = dict.fromkeys(repr([text]) for text in tuned)
        values |= dict.fromkeys(self._kind_values(trial) for trial in self.trials)
        return {value: number for number, value in enumerate(values)}

    def _kind_values(self, trial: TrialConfig) -> str:
        return repr([trial.flat.get(name) for name in self._kind_names])

    @cached_property
    def _kind_names(self) -> list[str]:
        """The settings that decide the kind of a trial."""
        tuned = {short_name(path) for space in self.spaces for path in space}
        names = [name for name in self.varying if name not in tuned | {"seed"}]
        texts = [name for name in names if _is_text(name, self.trials)]
        return texts or names[:1] or [*self._tuned_texts][:1]

    @cached_property
    def _tuned_texts(self) -> dict[str, list[str]]:
        """The choices that a search has for each text setting, by short names."""
        found: dict[str, dict[str, None]] = {}
        for path, parameter in [item for space in self.spaces for item in space.items()]:
            texts = [choice for choice in parameter.choices or () if isinstance(choice, str)]
            if texts:
                found.setdefault(short_name(path), {}).update(dict.fromkeys(texts))
        return {name: list(texts) for name, texts in found.items()}


def _is_text(name: str, trials: Sequence[TrialConfig]) -> bool:
    return any(isinstance(trial.flat.get(name), str) for trial in trials)


def _in_a_word(name: str, value: object) -> str:
    """Return a setting in a run's name: a text alone, and of what is on, the name alone."""
    short = SHORT.get(name, name)
    if value is True:
        return short
    if isinstance(value, float):
        return f"{short}={value:.4g}"
    return value if isinstance(value, str) else f"{short}={canonical(value)}"

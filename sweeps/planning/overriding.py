"""Values given on the command line, applied to a sweep."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from analysis.text.messages import without_password
from sweeps.planning.arms import setting_fields
from sweeps.spec.overrides import read_value, read_values
from sweeps.spec.sweep_file import SweepFile
from trainables.errors import UserError, brief, unknown_setting, validate


def override(sweep: SweepFile, assignments: Sequence[str]) -> SweepFile:
    """Change a sweep by ``path=value``; ``path=a,b`` tries both values.

    A path of a trial (``model.X``, ``training.X``) holds for every arm whose model has that
    setting, and replaces what the arm gives, sweeps or searches there; a range is searched:
    ``path={low: 1e-3, high: 1e-1, log: true}``. ``seed=7`` is the first seed of the
    replicates, ``seed=7,8`` and ``replicates=[7,8]`` are all of them. Values are YAML, but a
    setting that is text takes what is written as it is.

    Raises:
        UserError: the form, the path or the value is wrong; the message names the override.
    """
    for assignment in assignments:
        try:
            sweep = _apply(sweep, assignment)
        except UserError as error:
            raise UserError(f"override {brief(without_password(assignment))}: {error}") from None
    return sweep


def _apply(sweep: SweepFile, assignment: str) -> SweepFile:
    """Return the sweep with one assignment applied."""
    path, equals, text = assignment.partition("=")
    if not equals:
        raise UserError("write it as path=value, such as training.max_steps=100")
    if path == "seed" and "," in text:
        path, text = "replicates", f"[{text.removeprefix('[').removesuffix(']')}]"
    if path == "corpus" and not text.startswith("{"):
        path = "corpus.name"
    data = sweep.model_dump()
    if path.partition(".")[0] in SweepFile.model_fields and not path.startswith("training."):
        _assign(data, path.split("."), read_value(text, path))
    else:
        _assign_in_arms(sweep, data, path, text)
    return validate(SweepFile, data, "")


def _assign(data: dict[str, object], path: Sequence[str], value: object) -> None:
    """Set a nested value by its path."""
    *parents, name = path
    for parent in parents:
        if data.get(parent) is None:
            data[parent] = {}
        inner = data[parent]
        if not isinstance(inner, dict):
            raise UserError(f"{'.'.join(path)}: {parent} has no settings")
        data = inner
    data[name] = value


def _assign_in_arms(sweep: SweepFile, data: dict[str, object], path: str, text: str) -> None:
    """Set a setting of trials in the data of every arm that has it."""
    fields = [setting_fields(arm.model) for arm in sweep.arms]
    if not any(path in known for known in fields):
        raise UserError(unknown_setting(path, {*itertools.chain(*fields), *data}))
    arms = []
    for arm, known in zip(sweep.arms, fields, strict=True):
        changed = arm.model_dump()
        if path in known:
            values = read_values(text, known[path].annotation)
            is_range = len(values) == 1 and isinstance(values[0], dict)
            changed["search" if is_range else "grid"][path] = values[0] if is_range else values
            changed["grid" if is_range else "search"].pop(path, None)
        arms.append(changed)
    data["arms"] = arms

"""Values given on the command line, applied to a sweep."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

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

    The order of changes makes no difference to whether they are valid together: a change that is
    wrong by itself may be put right by a later one.

    Raises:
        UserError: the form, the path or the value is wrong; the message names the override.
    """
    data = sweep.model_dump()
    wrong: UserError | None = None  # why the data are no sweep at this point
    for assignment in assignments:
        try:
            _apply(sweep, data, assignment)
        except UserError as error:
            raise wrong or _named(assignment, error) from None
        try:
            sweep = validate(SweepFile, data, "")
            data, wrong = sweep.model_dump(), None
        except UserError as error:
            wrong = wrong or _named(assignment, error)
    if wrong:
        raise wrong
    return sweep


def _named(assignment: str, error: UserError) -> UserError:
    return UserError(f"override {brief(without_password(assignment))}: {error}")


def _apply(sweep: SweepFile, data: dict[str, object], assignment: str) -> None:
    """Apply one assignment to the data of a sweep.

    Args:
        sweep: whose arms say which settings there are.
        data: changed in place; no valid sweep if later assignments have to put it right.
        assignment: such as ``model.n_embd=64``.
    """
    path, equals, text = assignment.partition("=")
    if not equals:
        raise UserError("write it as path=value, such as training.max_steps=100")
    if path == "seed" and "," in text:
        path, text = "replicates", f"[{text.removeprefix('[').removesuffix(']')}]"
    if path == "corpus" and not text.startswith("{"):
        path = "corpus.name"
    if path.partition(".")[0] in SweepFile.model_fields and not path.startswith("training."):
        _assign(data, path.split("."), read_value(text, path))
    else:
        _assign_in_arms(sweep, data, path, text)


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
    for arm, known in zip(_arms_of(data, len(fields)), fields, strict=True):
        if path in known:
            values = read_values(text, known[path].annotation)
            is_range = len(values) == 1 and isinstance(values[0], dict)
            arm["search" if is_range else "grid"][path] = values[0] if is_range else values
            arm["grid" if is_range else "search"].pop(path, None)


def _arms_of(data: Mapping[str, object], number: int) -> Sequence[dict[str, dict[str, object]]]:
    """Return the arms in the data of a sweep.

    Raises:
        UserError: they were replaced by something that is no list of arms like those before.
    """
    arms = data["arms"]
    if not isinstance(arms, list) or len(arms) != number:
        raise UserError("the arms are not valid")
    if not all(isinstance(arm, dict) and {"grid", "search"} <= arm.keys() for arm in arms):
        raise UserError("the arms are not valid")
    return arms

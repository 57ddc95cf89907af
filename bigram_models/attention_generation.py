"""Predictors of `attention`, which compute the last query alone and keep what stays the same.

Shapes: M models, B texts of each, T time, D width, D2 pairs of channels, V vocabulary, R = M * V
rows of all models' tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from bigram_models.generation import (
    ForwardPredictor,
    Predictor,
    first_rows,
    quicker_device,
)

if TYPE_CHECKING:
    from bigram_models.attention import AttentionBigram

MAX_V = 512  # tokens, whose pairs are a table of 1 MiB for each model


def attention_predictors(
    members: Sequence[AttentionBigram],
) -> list[tuple[Sequence[int], Predictor]]:
    """Return predictors of models of one shape, a predictor for each kind of encoding."""
    numbers_of: dict[object, list[int]] = {}
    for number, member in enumerate(members):
        numbers_of.setdefault(_kind(member), []).append(number)
    return [
        (numbers, _predictor([members[number] for number in numbers]))
        for numbers in numbers_of.values()
    ]


def _kind(member: AttentionBigram) -> object:
    """Return a value that is equal for models that one predictor can have."""
    position = member.position
    if position.turns(1) is not None:
        return TurnedKeys
    if position.added_table() is not None and member.vocab_size <= MAX_V:
        return PairTables
    return type(position)


def _predictor(members: Sequence[AttentionBigram]) -> Predictor:
    kind = _kind(members[0])
    if kind is TurnedKeys:
        return TurnedKeys(members, quicker_device(members))
    if kind is PairTables:
        return PairTables(members, quicker_device(members))
    return ForwardPredictor(members)


class PairTables:
    """Looks up scores (E_a + p_t) . (E_b + p_s), multiplied out, and values W (E_b + p_s) + bias.

    For encodings that add a table p to the embeddings E.
    """

    def __init__(self, members: Sequence[AttentionBigram], device: torch.device) -> None:
        self.device = device
        E_MVD = _stacked([member.embed_VD for member in members], device)
        p_MTD = _stacked([member.position.added_table() for member in members], device)
        W_MDV = _stacked([member.head.weight for member in members], device).mT
        bias_M1V = _stacked([member.head.bias for member in members], device)[:, None]
        scaled_MDC = torch.cat([E_MVD, p_MTD], 1).mT * E_MVD.shape[-1] ** -0.5
        # What the last token, and its position, add to the scores: a column for each token b, then
        # one for each position s.
        self._token_RC = (E_MVD @ scaled_MDC).flatten(0, 1)
        self._position_TM1C = (p_MTD @ scaled_MDC).transpose(0, 1).contiguous()[:, :, None]
        # The values of all tokens, and below them those of all positions.
        values = (E_MVD @ W_MDV).flatten(0, 1), torch.baddbmm(bias_M1V, p_MTD, W_MDV).flatten(0, 1)
        self._value_RV = torch.cat(values)
        positions_N = torch.arange(len(values[0]), len(self._value_RV), device=device)
        self._position_row_M1T = positions_N.view(len(members), 1, -1)
        self._first_row_M11 = first_rows(len(members), E_MVD.shape[1], device)[..., None]
        self._shape = torch.Size()

    def __call__(self, ids_MBT: Tensor) -> Tensor:
        if ids_MBT.shape != self._shape:
            self._prepare(ids_MBT.shape)
        M, B, T = self._shape
        V = self._value_RV.shape[-1]
        row_MBT = ids_MBT + self._first_row_M11
        last_MBC = F.embedding(row_MBT[..., -1], self._token_RC) + self._last_position_M1C
        weight_MBT = (last_MBC.gather(-1, ids_MBT) + last_MBC[..., V : V + T]).softmax(-1)
        rows = torch.cat([row_MBT, self._position_row_MBT], -1).view(-1)
        weights = torch.cat([weight_MBT, weight_MBT], -1).view(-1)
        # The sum of a text's values by weight; `F.embedding_bag` would take twice as long.
        logits_RV, *_ = torch.embedding_bag(
            self._value_RV, rows, self._first_values, False, 0, False, weights
        )
        return logits_RV.view(M, B, V)

    def _prepare(self, shape: torch.Size) -> None:
        """Select what all windows of one shape (M, B, T) need."""
        M, B, T = self._shape = shape
        self._last_position_M1C = self._position_TM1C[T - 1]
        self._position_row_MBT = self._position_row_M1T[..., :T].expand(M, B, T)
        self._first_values = torch.arange(0, 2 * M * B * T, 2 * T, device=self.device)


class TurnedKeys:
    """Keeps keys that are turned by their places in the text, not by those in the window.

    For encodings that rotate by angles in proportion to the position: when the window moves on, all
    its keys turn by the same angles, which changes no score. So what was mixed is turned back by
    the angles of the window's first place.
    """

    def __init__(self, members: Sequence[AttentionBigram], device: torch.device) -> None:
        self.device = device
        E_MVD = _stacked([member.embed_VD for member in members], device)
        self._pair_RD2 = torch.view_as_complex(E_MVD.view(-1, E_MVD.shape[-1] // 2, 2))
        self._head_MDV = _stacked([member.head.weight for member in members], device).mT
        self._bias_M1V = _stacked([member.head.bias for member in members], device)[:, None]
        self._first_row_M11 = first_rows(len(members), E_MVD.shape[1], device)[..., None]
        self._places = 2 * members[0].context_size  # after them the keys are computed anew
        turn_ND2 = members[0].position.turns(self._places)
        assert turn_ND2 is not None
        self._turn_ND2 = turn_ND2.to(device)
        self._back_ND2 = self._turn_ND2.conj().resolve_conj()
        self._end = self._places  # of the keys so far

    def __call__(self, ids_MBT: Tensor) -> Tensor:
        M, B, T = ids_MBT.shape
        new = 1
        if self._end == self._places:
            new, self._end = T, 0
            self._key_MBND2 = self._pair_RD2.new_empty(M, B, self._places, len(self._turn_ND2[0]))
            self._key_MBND = torch.view_as_real(self._key_MBND2).flatten(-2)  # the same memory
        start, end = self._end, self._end + new
        pair_MBTD2 = F.embedding(ids_MBT[..., T - new :] + self._first_row_M11, self._pair_RD2)
        torch.mul(pair_MBTD2, self._turn_ND2[start:end], out=self._key_MBND2[:, :, start:end])
        self._end = end
        key_MBTD = self._key_MBND[:, :, end - T : end]
        mixed_MB1D = F.scaled_dot_product_attention(key_MBTD[:, :, -1:], key_MBTD, key_MBTD)
        mixed_MBD2 = (
            torch.view_as_complex(mixed_MB1D.reshape(M, B, -1, 2)) * self._back_ND2[end - T]
        )
        mixed_MBD = torch.view_as_real(mixed_MBD2).view(M, B, -1)
        return torch.baddbmm(self._bias_M1V, mixed_MBD, self._head_MDV)


def _stacked(tensors: Sequence[Tensor | None], device: torch.device) -> Tensor:
    return torch.stack([tensor for tensor in tensors if tensor is not None]).to(device)

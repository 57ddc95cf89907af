"""The code of `bigram_models.kernels`, in Triton's language, which documents what they compute.

A kernel is run by many programs at once; each has a block of rows. Sizes of blocks, in capitals
and of several letters, are powers of two; what is beyond the tensors is masked. Nothing but these
is compiled anew for other numbers, except widths D, so that rows are known to be aligned.

Shapes: M members, B batch, T time, N = B * T, D width, V vocabulary, P values of a member.
"""

import triton
import triton.language as tl


@triton.jit
def window_tokens(tokens, starts, row, m, n, is_row, M, B, T, ahead):
    """Return the token of each place n of member m's windows in this row of starts, or later."""
    first = tl.load(starts + (tl.load(row) * M + m) * B + n // T, mask=is_row, other=0)
    return tl.load(tokens + first + n % T + ahead, mask=is_row, other=0)


@triton.jit
def turned(x, turn, sign, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Multiply pairs of channels by unit complex numbers; if sign is -1 by their conjugates."""
    a, b = tl.split(tl.reshape(x, (ROWS, WIDTH // 2, 2)))
    cos, sin = tl.split(tl.reshape(turn, (ROWS, WIDTH // 2, 2)))
    sin *= sign
    return tl.reshape(tl.join(a * cos - b * sin, a * sin + b * cos), (ROWS, WIDTH))


@triton.jit(do_not_specialize=["offset", "P", "M", "B", "T"])
def embed_windows(
    values, tokens, starts, row, turn, table, x_out,
    offset, P, M, B, T, D,
    ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    m = tl.program_id(1).to(tl.int64)
    n = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    is_row = n < B * T
    token = window_tokens(tokens, starts, row, m, n, is_row, M, B, T, 0)
    d = tl.arange(0, WIDTH)[None, :]
    inside = is_row[:, None] & (d < D)
    x = tl.load(values + m * P + offset + token[:, None] * D + d, mask=inside, other=0.0)
    place = (m * T + n % T)[:, None] * D + d
    turn = tl.load(turn + place, mask=inside, other=0.0)
    x = turned(x, turn, 1.0, ROWS, WIDTH) + tl.load(table + place, mask=inside, other=0.0)
    tl.store(x_out + (m * B * T + n)[:, None] * D + d, x, mask=inside)


@triton.jit(do_not_specialize=["M", "B", "T", "V"])
def embedding_gradient(
    d_x, turn, tokens, starts, row, partial, M, B, T, V, D,
    ROUNDS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, VOCABULARY: tl.constexpr,
):  # fmt: skip
    m = tl.program_id(1).to(tl.int64)
    part = tl.program_id(2)
    widths = tl.cdiv(D, WIDTH)
    v = tl.program_id(0) // widths * VOCABULARY + tl.arange(0, VOCABULARY)
    d = (tl.program_id(0) % widths * WIDTH + tl.arange(0, WIDTH))[None, :]
    total = tl.zeros((VOCABULARY, WIDTH), tl.float32)
    for number in range(ROUNDS):
        n = (part * ROUNDS + number) * ROWS + tl.arange(0, ROWS)
        is_row = n < B * T
        inside = is_row[:, None] & (d < D)
        token = window_tokens(tokens, starts, row, m, n, is_row, M, B, T, 0)
        place = (m * T + n % T)[:, None] * D + d
        d_row = tl.load(d_x + (m * B * T + n)[:, None] * D + d, mask=inside, other=0.0)
        d_row = turned(d_row, tl.load(turn + place, mask=inside, other=0.0), -1.0, ROWS, WIDTH)
        # The sum of two numbers of 11 bits, which tensor cores multiply exactly by 0 and 1.
        high = (d_row.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)
        is_token = (v[:, None] == token[None, :]).to(tl.float32)
        total = tl.dot(is_token, high, total, input_precision="tf32")
        total = tl.dot(is_token, d_row - high, total, input_precision="tf32")
    at = partial + ((part * M + m) * V + v)[:, None] * D + d
    tl.store(at, total, mask=(v < V)[:, None] & (d < D))


@triton.jit(do_not_specialize=["rows", "T"])
def causal_softmax(score, scale, rows, T, ROWS: tl.constexpr, KEYS: tl.constexpr):
    n = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    key = tl.arange(0, KEYS)[None, :]
    is_row = (n < rows)[:, None]
    is_past = key <= (n % T)[:, None]
    at = score + n[:, None] * T + key
    z = tl.where(is_past, tl.load(at, mask=is_row & is_past, other=0.0) * scale, -float("inf"))
    e = tl.exp(z - tl.max(z, 1)[:, None])
    tl.store(at, e / tl.sum(e, 1)[:, None], mask=is_row & (key < T))


@triton.jit(do_not_specialize=["matrices", "T"])
def softmax_backward(
    weight, d_weight, scale, matrices, T, MATRICES: tl.constexpr, KEYS: tl.constexpr
):
    matrix = (tl.program_id(0).to(tl.int64) * MATRICES + tl.arange(0, MATRICES))[:, None, None]
    query, key = tl.arange(0, KEYS)[None, :, None], tl.arange(0, KEYS)[None, None, :]
    inside = (matrix < matrices) & (query < T) & (key < T)
    at = (matrix * T + query) * T + key
    w = tl.load(weight + at, mask=inside & (key <= query), other=0.0)
    dw = tl.load(d_weight + at, mask=inside & (key <= query), other=0.0)
    d_score = w * (dw - tl.expand_dims(tl.sum(w * dw, 2), 2)) * scale
    tl.store(d_weight + at, d_score + tl.permute(d_score, (0, 2, 1)), mask=inside)


@triton.jit(
    do_not_specialize=["bias_stride", "M", "B", "T", "V"], do_not_specialize_on_alignment=["bias"]
)
def cross_entropy(
    logits, bias, tokens, starts, row, loss,
    scale, bias_stride, M, B, T, V,
    ROWS: tl.constexpr, VOCABULARY: tl.constexpr,
):  # fmt: skip
    m = tl.program_id(1).to(tl.int64)
    n = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    is_row = n < B * T
    target = window_tokens(tokens, starts, row, m, n, is_row, M, B, T, 1)
    v = tl.arange(0, VOCABULARY)[None, :]
    inside = is_row[:, None] & (v < V)
    at = logits + (m * B * T + n)[:, None] * V + v
    z = tl.load(at, mask=inside, other=0.0)
    z += tl.load(bias + m * bias_stride + v, mask=v < V, other=0.0)
    z = tl.where(v < V, z, -float("inf"))
    top = tl.max(z, 1)
    e = tl.exp(z - top[:, None])
    total = tl.sum(e, 1)
    is_target = v == target[:, None]
    tl.store(at, (e / total[:, None] - is_target.to(tl.float32)) * scale, mask=inside)
    nats = tl.log(total) + top - tl.sum(tl.where(is_target, z, 0.0), 1)
    tl.store(loss + m * B * T + n, nats, mask=is_row)


@triton.jit(do_not_specialize=["M"])
def adamw(
    values, gradient, average, square, scalars, row, beta1, beta2, P, M, VALUES: tl.constexpr
):
    m = tl.program_id(1).to(tl.int64)
    p = tl.program_id(0) * VALUES + tl.arange(0, VALUES)
    at, inside = m * P + p, p < P
    scalars += tl.load(row) * 3 * M + m
    g = tl.load(gradient + at, mask=inside)
    mean = tl.load(average + at, mask=inside)
    mean += (g - mean) * (1 - beta1)
    mean_square = tl.load(square + at, mask=inside) * beta2 + g * g * (1 - beta2)
    step = mean / (tl.sqrt(mean_square) * tl.load(scalars) + tl.load(scalars + M))
    kept = tl.load(values + at, mask=inside) * tl.load(scalars + 2 * M)
    tl.store(values + at, kept - step, mask=inside)
    tl.store(average + at, mean, mask=inside)
    tl.store(square + at, mean_square, mask=inside)


@triton.jit(do_not_specialize=["sequences", "T"])
def mix(
    x, mixed, log_sum, scale, sequences, T, D,
    ROWS: tl.constexpr, TIME: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    sequence = tl.program_id(0).to(tl.int64) * (ROWS // TIME) + tl.arange(0, ROWS) // TIME
    t = tl.arange(0, ROWS) % TIME
    d = tl.arange(0, WIDTH)[None, :]
    is_row, inside = sequence < sequences, (sequence < sequences)[:, None] & (d < D)
    first = x + (sequence * T)[:, None] * D + d
    own = tl.load(first + t[:, None] * D, mask=inside & (t < T)[:, None], other=0.0)
    top = tl.full((ROWS,), -float("inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    result = tl.zeros((ROWS, WIDTH), tl.float32)
    for key in range(TIME):
        other = tl.load(first + key * D, mask=inside & (key < T), other=0.0)
        score = tl.where(key <= t, tl.sum(own * other, 1) * scale, -float("inf"))
        higher = tl.maximum(top, score)
        kept, weight = tl.exp(top - higher), tl.exp(score - higher)
        total, top = total * kept + weight, higher
        result = result * kept[:, None] + weight[:, None] * other
    at = sequence * T + t
    tl.store(log_sum + at, top + tl.log(total), mask=is_row & (t < T))
    inside = inside & (t < T)[:, None]
    tl.store(mixed + at[:, None] * D + d, result / total[:, None], mask=inside)


@triton.jit(do_not_specialize=["sequences", "T"])
def mix_backward(
    x, mixed, d_mixed, log_sum, d_x, scale, sequences, T, D,
    ROWS: tl.constexpr, TIME: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    sequence = tl.program_id(0).to(tl.int64) * (ROWS // TIME) + tl.arange(0, ROWS) // TIME
    t = tl.arange(0, ROWS) % TIME
    d = tl.arange(0, WIDTH)[None, :]
    is_sequence = sequence < sequences
    is_row = is_sequence & (t < T)
    inside = is_row[:, None] & (d < D)
    at = (sequence * T + t)[:, None] * D + d
    own = tl.load(x + at, mask=inside, other=0.0)
    d_own = tl.load(d_mixed + at, mask=inside, other=0.0)
    shift = tl.load(log_sum + sequence * T + t, mask=is_row, other=0.0)
    mean = tl.sum(d_own * tl.load(mixed + at, mask=inside, other=0.0), 1)
    result = tl.zeros((ROWS, WIDTH), tl.float32)
    for i in range(TIME):  # another place of the sequence: a key of this one, or its query
        at_other = (sequence * T + i)[:, None] * D + d
        is_other = is_sequence & (i < T)
        is_inside = is_other[:, None] & (d < D)
        other = tl.load(x + at_other, mask=is_inside, other=0.0)
        d_other = tl.load(d_mixed + at_other, mask=is_inside, other=0.0)
        mixed_other = tl.load(mixed + at_other, mask=is_inside, other=0.0)
        shift_other = tl.load(log_sum + sequence * T + i, mask=is_other, other=0.0)
        score = tl.sum(own * other, 1) * scale
        weight = tl.where(i <= t, tl.exp(score - shift), 0.0)
        d_score = weight * (tl.sum(d_own * other, 1) - mean)
        weight = tl.where(is_other & (i >= t), tl.exp(score - shift_other), 0.0)
        d_score += weight * (tl.sum(d_other * own, 1) - tl.sum(d_other * mixed_other, 1))
        result += (d_score * scale)[:, None] * other + weight[:, None] * d_other
    tl.store(d_x + at, result, mask=inside)

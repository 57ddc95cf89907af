"""The text that models are trained on, as token ids."""

from __future__ import annotations

import codecs
import errno
import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainables.data.verse import write_play
from trainables.errors import UserError, brief, similar_name
from trainables.files import expand_home, is_utf8, read_regular_file, write_atomically

TINYSHAKESPEARE_URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
TINYSHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
DOWNLOAD_TIMEOUT_S = 30
NAMES = ("tinyshakespeare", "embedded")  # of corpora that are no files of users
TRAIN_SHARE = 0.9  # of the text before the test split
MOST_BYTES = 1 << 30  # of a text; its tokens take up to five times as much memory
PIECE_BYTES = 1 << 20
SHORTER = "train on a part of it, such as its first 100 MB (head -c 100M)"

Tokens = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Corpus:
    """A tokenised text: the first 90 % for training, the rest for validation.

    A test split, if there is one, is cut off the end of the text before; nothing reads it but the
    last evaluation of the trials that are tested.

    A token is a character, and its id the rank of the character among the sorted characters of
    the whole text, as in the published study.
    """

    name: str
    digest: str  # sha256 of the text as UTF-8, hexadecimal
    vocabulary: str  # the V distinct characters, sorted
    train: Tokens
    validation: Tokens
    unseen: str = ""  # the characters of the validation split that training never sees, sorted
    unseen_tokens: int = 0  # how many tokens of the validation split they are
    test: Tokens = field(default_factory=lambda: np.empty(0, np.int32))  # empty if there is none

    @property
    def warning(self) -> str:
        """Warning about characters that do not occur in training; empty if there are none."""
        if not self.unseen:
            return ""
        shown = " ".join(map(repr, self.unseen[:8])) + (" ..." if len(self.unseen) > 8 else "")
        return (
            f"{self.unseen_tokens:,} of the {len(self.validation):,} characters that validate are"
            f" none of those that train ({shown}): no model can learn them, and each costs loss"
        )

    @property
    def vocab_size(self) -> int:
        """Number of distinct characters V."""
        return len(self.vocabulary)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text.

        Raises:
            UserError: a character is not in the vocabulary.
        """
        return encode(text, self.vocabulary)

    def check_block(self, block_size: int) -> None:
        """Refuse a block size that is too long for one of the splits.

        Raises:
            UserError: a split has no window of block_size tokens and a next one.
        """
        longest = min(len(self.train), len(self.validation)) - 1
        if block_size > longest:
            raise UserError(
                f"block_size={block_size} is longer than the validation split of corpus"
                f" {self.name!r} allows ({max(longest, 0)} tokens and one to predict);"
                " choose a shorter block or a longer text"
            )


def encode(text: str, vocabulary: str) -> list[int]:
    """Return the token ids of a text: the index of each character in the vocabulary.

    Raises:
        UserError: a character is not in the vocabulary.
    """
    ids = {character: id for id, character in enumerate(vocabulary)}
    for character in text:
        if character not in ids:
            raise UserError(
                f"the character {character!r} does not occur in the training text;"
                f" the model knows {vocabulary!r}"
            )
    return [ids[character] for character in text]


def decode(ids: list[int], vocabulary: str) -> str:
    """Return the text of token ids."""
    return "".join(vocabulary[id] for id in ids)


def load_corpus(name: str, cache: Path, test: float = 0.0) -> Corpus:
    """Read and tokenise a corpus.

    Args:
        name: ``tinyshakespeare``, ``embedded`` or ``file:PATH``.
        cache: the folder of downloaded corpora; ``NAME/input.txt`` in it is used if it exists.
        test: the share of the text that is its test split, at its end.

    Raises:
        UserError: the corpus does not exist, cannot be read or downloaded, or is too short.
    """
    if name == "embedded":
        return tokenise(name, write_play(), test)
    try:
        return _tokenise_utf8(name, _content(name, cache).removeprefix(codecs.BOM_UTF8), test)
    except MemoryError:
        raise UserError(
            f"corpus {name!r} does not fit into the memory of this machine; {SHORTER}"
        ) from None


def tokenise(name: str, text: str, test: float = 0.0) -> Corpus:
    """Split a text into training and validation tokens, and those of a share for the test.

    Raises:
        UserError: the text is too short.
    """
    return _tokenise_utf8(name, text.encode(), test)


def _tokenise_utf8(name: str, content: bytes, test: float) -> Corpus:
    """Do the same as `tokenise` for a large text: piece by piece, without sorting it."""
    if not content:
        raise UserError(f"corpus {name!r} is empty")
    is_used = np.zeros(sys.maxunicode + 1, dtype=bool)  # by code point
    length = 0
    try:
        for points in _code_points(content):
            is_used[points] = True
            length += len(points)
    except UnicodeDecodeError:
        raise UserError(f"corpus {name!r} is not UTF-8 ({_first_fault(content)});"
                        " convert it, for instance with iconv") from None  # fmt: skip
    vocabulary = np.flatnonzero(is_used)
    id_of_point = (np.cumsum(is_used) - 1).astype(np.int32)
    tokens = np.empty(length, dtype=np.int32)
    start = 0
    for points in _code_points(content):
        id_of_point.take(points, out=tokens[start : start + len(points)], mode="clip")
        start += len(points)
    rest = length - round(test * length)
    train, validation, tested = np.split(tokens, [int(TRAIN_SHARE * rest), rest])
    if len(train) < 2 or len(validation) < 2 or (test and len(tested) < 2):
        raise UserError(
            f"corpus {name!r} is too short: {length} characters leave"
            f" {len(train)} for training and {len(validation)} for validation,"
            f"{f' and {len(tested)} for the test,' if test else ''} and each needs 2"
        )
    is_seen = np.zeros(len(vocabulary), dtype=bool)
    is_seen[train] = True
    unseen = np.unique(validation[~is_seen[validation]])
    return Corpus(
        name=name,
        digest=hashlib.sha256(content).hexdigest(),
        vocabulary="".join(map(chr, vocabulary)),
        train=train,
        validation=validation,
        unseen="".join(map(chr, vocabulary[unseen])),
        unseen_tokens=int((~is_seen)[validation].sum()),
        test=tested,
    )


def _code_points(content: bytes) -> Iterator[npt.NDArray[np.uint32]]:
    """Yield the code points of a text in UTF-8, some at a time."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    whole = memoryview(content)
    for start in range(0, len(content), PIECE_BYTES):
        piece = whole[start : start + PIECE_BYTES]
        text = decoder.decode(piece, final=start + PIECE_BYTES >= len(content))
        yield np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)


def _first_fault(content: bytes) -> str:
    """Return the first byte of a text that is not UTF-8, and the reason, in words."""
    try:
        content.decode()
    except UnicodeDecodeError as error:
        return f"byte {error.start}: {error.reason}"
    raise AssertionError("it is UTF-8")


def _content(name: str, cache: Path) -> bytes:
    """Return the bytes of a corpus that is a file."""
    if name == "tinyshakespeare":
        return _tinyshakespeare(cache / name / "input.txt")
    kind, _, path = name.partition(":")
    if kind != "file" or not path:
        raise UserError(f"corpus {brief(name)} {_name_problem(name)}")
    if not is_utf8(name):
        raise UserError(f"corpus {name!r}: its name is not UTF-8; rename the file")
    try:
        return read_regular_file(expand_home(path), MOST_BYTES)
    except OSError as error:
        remedy = f"; {SHORTER}" if error.errno == errno.EFBIG else ""
        raise UserError(f"corpus {name!r} cannot be read ({error.strerror}){remedy}") from None


def _name_problem(name: str) -> str:
    """Return the problem with the name of a corpus that does not exist, and the remedy."""
    try:
        is_file = os.path.isfile(expand_home(name))
    except OSError:
        is_file = False
    if is_file:
        return f"is a file; a text of your own is named with file: before it, file:{name}"
    near = similar_name(name, NAMES)
    meant = f"; did you mean {near}?" if near else f"; choose {', '.join(NAMES)} or file:PATH"
    return f"does not exist{meant}"


def _tinyshakespeare(path: Path) -> bytes:
    """Read the text from the cache, or download it there; check its sha256 in both cases."""
    try:
        return _checked(read_regular_file(path, MOST_BYTES), "the cached file", path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UserError(
            f"corpus 'tinyshakespeare' cannot be read from {path} ({error.strerror});"
            " SWEEPS_CORPORA names another cache"
        ) from None
    try:
        with urllib.request.urlopen(TINYSHAKESPEARE_URL, timeout=DOWNLOAD_TIMEOUT_S) as answer:
            content = _checked(answer.read(), f"the download from {TINYSHAKESPEARE_URL}", path)
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise UserError(
            f"corpus 'tinyshakespeare' is not cached and could not be downloaded ({reason}).\n"
            f"Put the file at {path}, or run with corpus=embedded."
        ) from None
    try:
        write_atomically(path, content)
    except OSError as error:
        raise UserError(
            f"corpus 'tinyshakespeare' cannot be kept at {path} ({error.strerror});"
            " SWEEPS_CORPORA names another cache"
        ) from None
    return content


def _checked(content: bytes, source: str, path: Path) -> bytes:
    digest = hashlib.sha256(content).hexdigest()
    if digest != TINYSHAKESPEARE_SHA256:
        raise UserError(
            f"{source} is not tinyshakespeare: its sha256 is {digest},"
            f" not {TINYSHAKESPEARE_SHA256}; put the right file at {path}"
        )
    return content

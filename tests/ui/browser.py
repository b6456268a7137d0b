"""What a person does in the Prefect UI, done by headless Chromium against a real server and worker (`make test-ui`).

Needs playwright and a Chromium (Debian: `apt-get install chromium`; another place: CHROMIUM=/path). With
SCREENSHOTS=docs/images the pictures of the README are taken anew.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.flows.processes import wait_until_none
from tests.flows.projects import environment, make_project, sh
from tests.flows.servers import free_port

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium; apt-get install chromium"),
    pytest.mark.filterwarnings("default"),
]
PATIENCE = 120_000  # milliseconds; the machine may be busy


@dataclass
class Served:
    root: Path
    url: str


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`make serve` in a project whose training takes a while."""
    base = tmp_path_factory.mktemp("served")
    root = make_project(base / "project", served=True)
    port = free_port()
    values = {name: value for name, value in environment().items() if not name.startswith("PREFECT_") and name != "PYTHONPATH"}
    values |= {"PREFECT_HOME": str(base / "home"), "DAGOBERT_CLONES": str(base / "clones"), "FAKE_SECONDS": '{"train": 40}'}
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.serve", "--port", str(port)], cwd=root, env=values, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        line = next((line for line in process.stdout if "open http" in line), "")
        assert line, "serve ended before it was ready"
        yield Served(root, f"http://127.0.0.1:{port}")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
        process.stdout.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: playwright.Browser) -> Iterator[playwright.Page]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(PATIENCE)
    yield page
    page.close()


def open_deployment(page: playwright.Page, served: Served, name: str) -> None:
    page.goto(f"{served.url}/v2/deployments")
    page.get_by_role("link", name=name).first.click()
    page.get_by_role("button", name="Run").first.wait_for()


def open_form(page: playwright.Page, served: Served) -> playwright.Locator:
    open_deployment(page, served, "finetune")
    page.get_by_role("button", name="Run").first.click()
    page.get_by_role("menuitem", name="Custom run").click()
    rate = page.get_by_label("Learning Rate").first
    rate.wait_for()
    return rate


def wait_for_text(page: playwright.Page, text: str) -> None:
    page.locator("main").get_by_text(re.compile(rf"^{text}$")).first.wait_for()


def ask(served: Served, path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"{served.url}/api/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def shoot(page: playwright.Page, name: str) -> None:
    if directory := os.environ.get("SCREENSHOTS"):
        page.wait_for_timeout(1500)
        page.screenshot(path=Path(directory) / f"{name}.png")


def test_the_server_is_there(served: Served) -> None:
    with urllib.request.urlopen(f"{served.url}/api/health") as answer:
        assert answer.read() == b"true"


def test_deployments_are_listed(page: playwright.Page, served: Served) -> None:
    page.goto(f"{served.url}/v2/deployments")
    for name in ("finetune", "retrain", "predict", "sweep"):
        page.get_by_role("link", name=name).first.wait_for()


def test_a_wrong_value_is_refused_and_a_right_one_runs_and_is_recorded(page: playwright.Page, served: Served) -> None:
    rate = open_form(page, served)
    rate.fill("3")
    page.get_by_role("button", name="Submit").click()
    page.wait_for_timeout(1000)
    assert "/run" in page.url
    assert "less than or equal to 1" in rate.evaluate("field => field.validationMessage")
    rate.fill("0.0003")
    page.get_by_text("Parameters").first.scroll_into_view_if_needed()
    shoot(page, "prefect-form")
    page.get_by_role("button", name="Submit").click()
    page.get_by_text("View run").first.click()
    page.wait_for_url("**/flow-run/**")
    run = page.url.split("flow-run/")[1].split("?")[0]

    page.get_by_role("tab", name="Task Runs").click()
    page.get_by_text("train · lr 3e-4 · seed 42").first.wait_for()
    page.goto(f"{served.url}/v2/runs/flow-run/{run}?tab=Artifacts")
    page.get_by_text("progress-train").first.wait_for()
    wait_for_text(page, "Completed")
    page.reload()
    page.get_by_text("evaluation", exact=True).first.wait_for()
    page.goto(f"{served.url}/v2/runs/flow-run/{run}?tab=TaskRuns")
    page.get_by_text("evaluate · ").first.wait_for()
    shoot(page, "prefect-run")
    names = sh(served.root, "git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
    assert len(names) == 1
    assert sh(served.root, "git", "status", "--porcelain") == ""


def test_artifacts_show_pictures_and_escape_what_comes_from_data(page: playwright.Page, served: Served) -> None:
    for key in ("evaluation", "training", "data-report", "experiment"):
        page.goto(f"{served.url}/v2/artifacts/key/{key}")
        page.locator("a[href*='/artifacts/artifact/']").first.click()
        page.get_by_role("button", name="Show Raw Data").wait_for()
        if key in ("evaluation", "training"):
            page.locator("main img[src^='data:image/png']").wait_for()  # raises when there are two, too
        if key == "experiment":
            link = page.locator("main a", has_text=".html").get_attribute("href")
            assert link is not None
            assert link.startswith("http://127.0.0.1:")
            with (
                page.expect_popup() if page.locator("main a[target=_blank]", has_text=".html").count() else nullcontext() as it
            ):
                page.locator("main a", has_text=".html").click()
            opened = it.value if it is not None else page
            opened.wait_for_url(link)
            opened.get_by_text("report.html").wait_for()  # what the fake stage wrote
        if key == "data-report":
            page.get_by_text("<script>alert(1)</script>").wait_for()
            assert page.locator("main b", has_text="odd").count() == 0


def test_a_schedule_is_switched_on_and_its_run_appears(page: playwright.Page, served: Served) -> None:
    open_deployment(page, served, "retrain")
    switch = page.get_by_role("switch")
    switch.click()
    page.locator("[role=switch][aria-checked=true]").wait_for()
    deadline = time.monotonic() + PATIENCE / 1000
    while not (runs := ask(served, "flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}})):
        assert time.monotonic() < deadline
        time.sleep(1)
    page.goto(f"{served.url}/v2/deployments/deployment/{runs[0]['deployment_id']}?tab=Upcoming")
    page.get_by_role("link", name=runs[0]["name"]).or_(page.get_by_text("Scheduled for")).first.wait_for()
    switch.click()
    page.locator("[role=switch][aria-checked=false]").wait_for()


def test_cancelling_ends_the_run_and_all_its_processes(page: playwright.Page, served: Served) -> None:
    rate = open_form(page, served)
    rate.fill("0.0007")
    page.get_by_role("button", name="Submit").click()
    page.get_by_text("View run").first.click()
    page.wait_for_url("**/flow-run/**")
    page.get_by_role("tab", name="Task Runs").click()
    page.get_by_text("train · lr 7e-4 · seed 42").first.wait_for()
    page.locator("main").get_by_role("button", name="Open menu").first.click()
    page.get_by_role("menuitem", name="Cancel").click()
    page.get_by_role("button", name="Cancel Flow Run").click()
    wait_for_text(page, "Cancelled")
    wait_until_none(served.root.parent / "clones")

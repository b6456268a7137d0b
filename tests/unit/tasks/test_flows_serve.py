from __future__ import annotations

import socket
from pathlib import Path

import pytest

from flows import serve, shell
from tasks.errors import TaskError, WorkplaceError
from tasks.forms import FinetuneForm
from tasks.trials import TrialsForm


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_an_address_that_others_reach_needs_an_auth_string(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_SERVER_API_AUTH_STRING", raising=False)
    with pytest.raises(WorkplaceError, match="PREFECT_SERVER_API_AUTH_STRING"):
        serve.check_address(host, 4200)


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(WorkplaceError, match="cannot be used"):
            serve.check_address("127.0.0.1", taken.getsockname()[1])


def test_the_page_is_told_where_the_server_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_UI_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "me:secret")
    values = serve.settings(tmp_path, "127.0.0.1", 4311)
    assert values["PREFECT_UI_API_URL"] == values["PREFECT_API_URL"] == "http://127.0.0.1:4311/api"
    assert values["PREFECT_API_AUTH_STRING"] == "me:secret"


def test_settings_of_the_shell_become_forms() -> None:
    assert shell.form(FinetuneForm, ["train.learning_rate=5e-5", "train.seed=3"]).values() == {
        "train": {"learning_rate": 5e-5, "seed": 3}
    }
    assert shell.lists(TrialsForm, ["seed=[1,2]", "learning_rate=1e-4"]).values() == {"learning_rate": [1e-4], "seed": [1, 2]}
    with pytest.raises(TaskError, match=r"train.learning_rate: .*less than or equal to 1"):
        shell.form(FinetuneForm, ["train.learning_rate=5"])


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("Failed to reach API at http://x/api/", "does not answer. Start it"),
        ("Client error '401 Unauthorized' for", "AUTH_STRING"),
    ],
)
def test_trouble_with_the_server_is_told_in_one_message(error: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    def start() -> None:
        raise RuntimeError(error)

    assert shell.run(start) == 2
    assert words in capsys.readouterr().err


def test_other_errors_keep_their_traceback() -> None:
    def start() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        shell.run(start)

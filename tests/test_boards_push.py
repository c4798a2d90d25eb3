"""`idemwatch boards push`: what is written to a Grafana, what is left alone, what goes wrong."""

from __future__ import annotations

import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from idemwatch.alerts.names import BOARDS, OVERVIEW
from idemwatch.dashboards.boards import boards
from idemwatch.dashboards.grafana import BadAddressError, address
from support import commands
from support.fake_grafana import TOKEN, FakeGrafana


@pytest.fixture
def grafana() -> Iterator[FakeGrafana]:
    with FakeGrafana() as found:
        yield found


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o600)
    return path


def push(grafana: FakeGrafana | str, token_file: Path, *more: str) -> Result:
    url = grafana if isinstance(grafana, str) else grafana.url
    done = commands.invoke("boards", "push", url, "--token-file", str(token_file), *more)
    assert TOKEN not in done.output
    return done


def test_boards_are_created_with_their_uids(grafana: FakeGrafana, token_file: Path) -> None:
    done = push(grafana, token_file)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.output.splitlines() == [f"{uid}: created, version 1" for uid in BOARDS]
    kept = {uid: versions[-1]["data"] for uid, versions in grafana.boards.items()}
    assert {uid: {**board, "id": 7} for uid, board in boards().items()} == kept


@pytest.mark.parametrize("plainly", [False, True], ids=["Grafana 12", "Grafana 11"])
def test_a_second_push_changes_nothing(
    grafana: FakeGrafana, token_file: Path, plainly: bool
) -> None:
    grafana.listed_plainly = plainly
    push(grafana, token_file)
    done = push(grafana, token_file)
    assert done.exit_code == 0
    assert done.output.splitlines() == [f"{uid}: unchanged" for uid in BOARDS]
    assert grafana.written == len(BOARDS)


def test_what_grafana_tidies_up_is_still_ours(grafana: FakeGrafana, token_file: Path) -> None:
    push(grafana, token_file)
    grafana.boards[OVERVIEW][-1]["data"]["schemaVersion"] = 42
    assert f"{OVERVIEW}: unchanged" in push(grafana, token_file).output
    done = push(grafana, token_file, "--threshold", "hotspots=4")
    assert f"{OVERVIEW}: updated, version 2" in done.output


def test_a_new_build_replaces_what_was_pushed_and_shows_the_difference(
    grafana: FakeGrafana, token_file: Path
) -> None:
    push(grafana, token_file)
    done = push(grafana, token_file, "--threshold", "health=80")
    assert done.exit_code == 0
    assert f"--- {OVERVIEW} in Grafana\n+++ {OVERVIEW} as built\n" in done.output
    assert re.search(r'^- +"value": 70\n\+ +"value": 80$', done.output, re.MULTILINE)
    assert f"{OVERVIEW}: updated, version 2" in done.output
    assert "idemwatch-pipeline: unchanged" in done.output


@pytest.mark.parametrize("readable", [True, False])
def test_a_board_that_somebody_edited_is_left_alone_and_so_are_the_others(
    grafana: FakeGrafana, token_file: Path, readable: bool
) -> None:
    push(grafana, token_file)
    grafana.edit(OVERVIEW, title="Mine")
    grafana.versions_readable = readable
    done = push(grafana, token_file, "--threshold", "health=80")
    assert done.exit_code == 3
    assert '-  "title": "Mine",\n+  "title": "idemwatch: Overview",\n' in done.output
    assert "edited in Grafana since the last push" in done.stderr
    assert grafana.written == len(BOARDS)


def test_the_exit_code_of_an_edited_board_is_three(grafana: FakeGrafana, token_file: Path) -> None:
    push(grafana, token_file)
    grafana.edit(OVERVIEW, title="Mine")
    done = commands.run("boards", "push", grafana.url, "--token-file", str(token_file))
    assert done.returncode == 3, done.stderr


def test_force_replaces_what_somebody_edited(grafana: FakeGrafana, token_file: Path) -> None:
    push(grafana, token_file)
    grafana.edit(OVERVIEW, title="Mine")
    done = push(grafana, token_file, "--force")
    assert done.exit_code == 0
    assert '-  "title": "Mine"' in done.output
    assert f"{OVERVIEW}: updated, version 3" in done.output
    assert grafana.boards[OVERVIEW][-1]["data"]["title"] == "idemwatch: Overview"
    assert f"{OVERVIEW}: unchanged" in push(grafana, token_file).output


def test_even_force_does_not_replace_what_is_edited_meanwhile(
    grafana: FakeGrafana, token_file: Path
) -> None:
    push(grafana, token_file)
    grafana.edit(OVERVIEW, title="Mine")

    def meanwhile(method: str, _: str) -> None:
        if method == "POST":
            grafana.edit(OVERVIEW, title="Mine too")

    grafana.before = meanwhile
    done = push(grafana, token_file, "--force")
    assert done.exit_code == 1
    assert "changed by someone else" in done.stderr and "run it again" in done.stderr
    assert grafana.boards[OVERVIEW][-1]["data"]["title"] == "Mine too"


def test_a_dry_run_writes_nothing(grafana: FakeGrafana, token_file: Path) -> None:
    done = push(grafana, token_file, "--dry-run")
    assert done.exit_code == 0
    assert done.output.splitlines() == [f"{uid}: would be created" for uid in BOARDS]
    assert grafana.written == 0


def test_boards_go_to_the_folder_that_is_named_and_stay_there(
    grafana: FakeGrafana, token_file: Path
) -> None:
    grafana.folders.add("sre")
    push(grafana, token_file, "--folder", "sre")
    push(grafana, token_file, "--threshold", "health=80")
    assert set(grafana.place.values()) == {"sre"}


def test_a_folder_that_does_not_exist_is_named(grafana: FakeGrafana, token_file: Path) -> None:
    done = push(grafana, token_file, "--folder", "nowhere")
    assert done.exit_code == 1 and "no such folder" in done.stderr


def test_boards_that_grafana_reads_from_files_are_not_pushed(
    grafana: FakeGrafana, token_file: Path
) -> None:
    push(grafana, token_file)
    grafana.meta = {"provisioned": True}
    done = push(grafana, token_file, "--threshold", "health=80", "--force")
    assert done.exit_code == 1 and "provisioning" in done.stderr
    assert grafana.written == len(BOARDS)


def test_a_wrong_token_is_told_and_not_shown(grafana: FakeGrafana, tmp_path: Path) -> None:
    path = tmp_path / "wrong"
    path.write_text("glsa_wrong_token")
    path.chmod(0o600)
    done = commands.invoke("boards", "push", grafana.url, "--token-file", str(path))
    assert done.exit_code == 1 and "does not know the token" in done.stderr
    assert "glsa_wrong" not in done.output


ANSWERS = {
    "forbidden": (403, "application/json", b'{"message": "no, %s"}' % TOKEN.encode(), "Editor"),
    "page": (200, "text/html", b"<html>Log in</html>", "whole address of Grafana"),
    "no path": (404, "text/html", b"<html>404</html>", "whole address of Grafana"),
    "other API": (404, "application/json", b'{"message": "Not found"}', "whole address of Grafana"),
    "not a board": (200, "application/json", b'{"status": "ok"}', "whole address of Grafana"),
    "trouble": (500, "application/json", b'{"message": "database is locked"}', "is locked"),
    "led away": (302, "text/html", b"http://127.0.0.1:9/login", "leads elsewhere"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_of_something_else_are_told_with_what_to_do(
    grafana: FakeGrafana, token_file: Path, name: str
) -> None:
    *answer, words = ANSWERS[name]
    status, kind, body = answer
    assert isinstance(status, int) and isinstance(kind, str) and isinstance(body, bytes)
    grafana.before = lambda *_: (status, kind, body)
    done = push(grafana, token_file)
    assert done.exit_code == 1 and str(words) in done.stderr
    assert len(grafana.requests) == 1


def test_a_grafana_that_is_not_there_is_told(token_file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    done = push(f"http://127.0.0.1:{port}", token_file)
    assert done.exit_code == 1 and f"cannot reach http://127.0.0.1:{port}" in done.stderr


def test_a_grafana_that_says_nothing_costs_only_the_time_out(token_file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        done = push(f"http://127.0.0.1:{port}", token_file, "--timeout", "0.3")
    assert done.exit_code == 1 and "timed out" in done.stderr


@pytest.mark.parametrize(
    "url",
    ["http://admin:hunter2@localhost:3000", "https://hunter2@grafana", "http://a:hunter2@[bad"],
)
def test_a_password_in_the_url_is_refused_and_never_printed(token_file: Path, url: str) -> None:
    done = push(url, token_file)
    assert done.exit_code == 2
    assert "hunter2" not in done.output
    with pytest.raises(BadAddressError) as refused:
        address(url)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    ["localhost:3000", "ftp://grafana", "http://", "http://grafana/?orgId=1", "http://gra fana",
     "http://grafana:99999", "http://grafana/#a"],
)  # fmt: skip
def test_what_is_no_address_is_refused(token_file: Path, url: str) -> None:
    assert push(url, token_file).exit_code == 2


def test_the_path_of_a_grafana_behind_a_proxy_is_kept() -> None:
    assert address("https://example.org/grafana/") == "https://example.org/grafana"


@pytest.mark.parametrize("content", [b"", b"\n \n", b"two words", b"\xff\xfe"])
def test_a_file_without_a_token_is_refused(
    grafana: FakeGrafana, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    done = push(grafana, path)
    assert done.exit_code == 2 and "does not hold a token" in done.stderr
    assert not grafana.requests


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_token_file_that_cannot_be_read_is_named(
    grafana: FakeGrafana, tmp_path: Path, name: str
) -> None:
    done = push(grafana, tmp_path / name)
    assert done.exit_code == 2 and f"cannot read {tmp_path / name}" in done.stderr


def test_a_token_that_everybody_can_read_is_warned_of(
    grafana: FakeGrafana, token_file: Path
) -> None:
    token_file.chmod(stat.S_IRUSR | stat.S_IROTH)
    done = push(grafana, token_file)
    assert done.exit_code == 0 and "everybody here can read" in done.stderr


def test_http_to_another_machine_is_warned_of(token_file: Path) -> None:
    done = push("http://grafana.invalid:3000", token_file, "--timeout", "0.5")
    assert "use https" in done.stderr

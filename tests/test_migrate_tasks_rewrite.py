"""What `migrate-tasks` writes: only decorators, bases and imports change, byte for byte."""

from __future__ import annotations

import ast
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, _state
from hypothesis import given, settings
from hypothesis import strategies as st
from idemwatch.idempotency import IdempotentTask
from idemwatch.idempotency.policies import POLICIES
from idemwatch.idempotency.task_call import with_arguments
from idemwatch.idempotency.task_files import Source, source_of
from idemwatch.idempotency.task_model import Chosen
from idemwatch.idempotency.task_rewrite import CannotRewrite, rewritten
from idemwatch.idempotency.task_scan import parsed
from idemwatch.idempotency.task_tree import analyse
from support.task_code import HEAD, migrate, migrated

# Each case is a module of the same name, and a shared task reaches every app of the test process.
pytestmark = pytest.mark.filterwarnings("ignore:Task name 'migrated_tasks")
ADDED = b'base=IdempotentTask, **task_retry_policy("maintenance")'
BODY = b"def work(x):\n    return x\n"


@pytest.fixture(autouse=True)
def _tasks_of_no_other_app() -> Iterator[None]:
    """What a module that is loaded here shares with all apps goes when the test is done."""
    before = set(_state._on_app_finalizers)
    yield
    _state._on_app_finalizers.intersection_update(before)


def loaded(code: bytes) -> types.ModuleType:
    """The module, run: it is of this test's own writing."""
    module = types.ModuleType("migrated_tasks")
    sys.modules[module.__name__] = module
    exec(compile(code, "tasks.py", "exec"), module.__dict__)
    return module


# -- layout ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"@shared_task", b"@shared_task(" + ADDED + b")"),
        (b"@shared_task()", b"@shared_task(" + ADDED + b")"),
        (b"@shared_task()  # why", b"@shared_task(" + ADDED + b")  # why"),
        (b"@shared_task(queue='a',)", b"@shared_task(queue='a', " + ADDED + b")"),
        (b"@shared_task(queue='a_long_name')",
         b"@shared_task(\n    queue='a_long_name',\n    base=IdempotentTask,\n"
         b'    **task_retry_policy("maintenance"),\n)'),
        (b"@shared_task(\n    queue='a',  # why a\n    # more\n)",
         b"@shared_task(\n    queue='a',  # why a\n    # more\n    base=IdempotentTask,\n"
         b'    **task_retry_policy("maintenance"),\n)'),
        (b"@shared_task(\n\tqueue='a'  # why\n)",
         b"@shared_task(\n\tqueue='a',  # why\n\tbase=IdempotentTask,\n"
         b'\t**task_retry_policy("maintenance"),\n)'),
        (b"@shared_task(queue='a',\n             rate_limit='1/s')",
         b"@shared_task(queue='a',\n             rate_limit='1/s',\n"
         b"             base=IdempotentTask,\n"
         b'             **task_retry_policy("maintenance"))'),
        (b"@shared_task(\n    # nothing yet\n)",
         b"@shared_task(\n    # nothing yet\n    base=IdempotentTask,\n"
         b'    **task_retry_policy("maintenance"),\n)'),
        (b"@shared_task(base=Task)", b"@shared_task(base=IdempotentTask, "
         b'**task_retry_policy("maintenance"))'),
    ],
)  # fmt: skip
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_layout_and_comments_stay(before: bytes, after: bytes, end: bytes, tmp_path: Path) -> None:
    head = b"from celery import Task, shared_task\n"
    ours = b"from idemwatch.idempotency import IdempotentTask, task_retry_policy\n"
    done = migrated(tmp_path, (head + before + b"\n" + BODY).replace(b"\n", end))
    assert done == (head + ours + after + b"\n" + BODY).replace(b"\n", end)


@pytest.mark.parametrize(
    "data",
    [
        "\ufeff{head}name = 'Grüße'\n{task}".encode().replace(b"{", b"{"),
        "# -*- coding: latin-1 -*-\n{head}name = 'Grüße'\n{task}".encode("latin-1"),
        "{head}\x0c\nname = '\u2028'\n{task}".encode(),
        "{head}日本 = 'x'; 本 = shared_task\n{task}".encode(),
        b"{head}if True:\n\tx = 1\n{task}",
    ],
)
@pytest.mark.parametrize("last", [b"\n", b""])
def test_encodings_and_the_end_of_the_file_stay(data: bytes, last: bytes, tmp_path: Path) -> None:
    task = b"@shared_task\ndef work(x): return x" + last
    before = data.replace(b"{head}", HEAD.encode()).replace(b"{task}", task)
    done = migrated(tmp_path, before)
    ours = b"from idemwatch.idempotency import IdempotentTask, task_retry_policy\n"
    assert (
        done.replace(ours, b"").replace(b"@shared_task(" + ADDED + b")", b"@shared_task") == before
    )
    compile(done, "tasks.py", "exec")


def test_a_long_key_is_broken_into_lines(tmp_path: Path) -> None:
    code = HEAD + "@shared_task\ndef make_report(report_name, params, user_id, format='pdf'): ...\n"
    done = migrated(tmp_path, code.encode()).decode()
    assert (
        '    idempotency_key=lambda task, report_name, params, user_id, format="pdf": '
        "report_generation_key(\n        report_name, params, user_id, format,\n    ),\n)\n"
    ) in done


OPTIONS = ("queue='a'", "rate_limit='1/s'", "bind=False", "name='n'", "max_retries=None", "**{}")
SPACES = ("", " ", "\n    ", "  # why\n    ", "\n\t", "\n    # more\n\n    ")


@st.composite
def decorators(draw: st.DrawFn) -> str:
    """A decorator with options, laid out anyhow."""
    parts = [draw(st.sampled_from(SPACES))]
    options = draw(st.lists(st.sampled_from(OPTIONS), unique=True))
    for number, option in enumerate(options):
        comma = "," if number < len(options) - 1 or draw(st.booleans()) else ""
        parts += [option, draw(st.sampled_from(SPACES)), comma, draw(st.sampled_from(SPACES))]
    return f"shared_task({''.join(parts)})"


@given(decorators(), st.sampled_from(["\n", "\r\n"]))
@settings(max_examples=300, deadline=None)
def test_any_layout_keeps_its_options_and_comments(written: str, newline: str) -> None:
    written = written.replace("\n", newline)
    done = with_arguments(
        written, ["base=X", "ttl=f(1)"], replaced_base="", newline=newline, indent="", unit="    "
    )

    def options(code: str) -> list[str]:
        (expression,) = ast.parse(code).body
        return re.findall(r"\w+=|\*\*", ast.unparse(expression))

    assert options(done) == [*options(written), "base=", "ttl="]
    assert re.findall("# [a-z]+", done) == re.findall("# [a-z]+", written)
    assert "\n" not in done.replace("\r\n", "") or newline == "\n"


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "told"),
    [
        ("from datetime import timedelta", "idempotency_ttl=timedelta("),
        ("from datetime import timedelta as td", "idempotency_ttl=td("),
        ("import datetime", "idempotency_ttl=datetime.timedelta("),
        ("import datetime as dt", "idempotency_ttl=dt.timedelta("),
        ("from datetime import datetime", "idempotency_ttl=timedelta("),
        ("timedelta = 5", "idempotency_ttl=idemwatch_timedelta("),
        ("import datetime\ndatetime = datetime.datetime", "idempotency_ttl=timedelta("),
        ("def timedelta(): ...", "idempotency_ttl=idemwatch_timedelta("),
        ("from idemwatch.idempotency import IdempotentTask as Once", "base=Once,"),
        ("class IdempotentTask: ...", "base=idemwatch_IdempotentTask,"),
    ],
)
def test_names_that_mean_something_else_are_not_touched(
    head: str, told: str, tmp_path: Path
) -> None:
    app = "from celery import Celery\napp = Celery(set_as_current=False)\n"
    code = f"{head}\n{app}@app.task(max_retries=1)\ndef work(x): return x\n"
    done = migrated(tmp_path, code.encode())
    assert told in done.decode()
    assert isinstance(loaded(done).work, IdempotentTask)


@pytest.mark.parametrize(
    ("head", "place"),
    [
        ('"""Doc."""\nfrom __future__ import annotations\nfrom celery import shared_task\n', 3),
        ("#!/bin/python\n# c\nfrom celery import shared_task\n\nx = 1\n", 3),
        ("import os\nos.environ['A'] = '1'\nfrom celery import shared_task\n", 3),
        ("try:\n    from celery import shared_task\nexcept ImportError:\n    raise\n", 4),
        ("import os; from celery import shared_task\n", 1),
        ("from celery import (\n    shared_task,\n)\n", 3),
    ],
)
def test_imports_stand_after_those_that_are_there(head: str, place: int, tmp_path: Path) -> None:
    done = migrated(tmp_path, head.encode() + b"\n@shared_task\n" + BODY).decode()
    assert done.splitlines()[place].startswith("from idemwatch.idempotency import ")
    assert loaded(done.encode()).IdempotentTask is IdempotentTask


# -- what was made works ---------------------------------------------------------------------------


def test_a_migrated_module_has_the_policy_and_the_tasks_own_options(tmp_path: Path) -> None:
    code = (
        "from celery import Celery\napp = Celery(set_as_current=False)\n"
        "@app.task(bind=True, max_retries=9, acks_late=False, idempotency_lease=60)\n"
        "def close_order(self, x): open('f', 'w')\n"
        "@app.task\ndef close_job(job_id, day): open('f', 'w')\n"
        "class Pay(__import__('celery').Task):\n    name = 'p'\n    def run(self, x): return x\n"
    )
    module = loaded(migrated(tmp_path, code.encode()))
    app: Celery = module.app
    order: Any = module.close_order
    job: Any = module.close_job
    assert (order.max_retries, order.acks_late, order.idempotency_lease) == (9, False, 60)
    assert (job.max_retries, job.acks_late) == (POLICIES["critical"].retries, True)
    app.conf.update(idempotency_store="memory")
    assert job.idempotency_key_of(7, "2026-03-01").key == "autoclose:7:2026-03-01"
    assert job.idempotency_options.ttl.total_seconds() == 26 * 3600


@pytest.mark.usefixtures("idempotency_memory")
def test_a_migrated_class_and_a_decorated_function_are_idempotent(tmp_path: Path) -> None:
    code = (
        "from celery import Celery, Task\napp = Celery(set_as_current=False)\nruns = []\n"
        "class Audited(Task):\n    abstract = True\n"
        "class Close(Task):\n    '''Doc.'''\n    name = 'c'\n    def run(self, x): runs.append(x)\n"
        "@app.task(base=Audited, bind=True)\ndef bill(self, x):\n    runs.append(x)\n    return x\n"
    )
    module = loaded(migrated(tmp_path, code.encode()))
    assert issubclass(module.Close, IdempotentTask) and module.Close.__doc__ == "Doc."
    task = module.app.register_task(module.Close())
    assert task.idempotency_options.ttl.total_seconds() == 4 * 3600
    assert isinstance(module.bill, module.Audited)
    assert [module.bill(7), module.bill(7), module.bill(8)] == [7, 7, 8]
    assert module.runs == [7, 8]  # the task itself is no part of the key


def test_a_change_that_would_touch_more_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tasks.py"
    path.write_bytes(HEAD.encode() + b"@shared_task\n" + BODY)
    analysis = analyse([str(path)])
    (chosen,) = analysis.chosen.values()
    monkeypatch.setattr(
        "idemwatch.idempotency.task_rewrite.applied",
        lambda text, _: text.replace("return", "yield"),
    )
    with pytest.raises(CannotRewrite, match="migrate it by hand"):
        rewritten(analysis.modules[str(path)], chosen)


def test_a_decorator_that_loses_an_option_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tasks.py"
    path.write_bytes(HEAD.encode() + b"@shared_task(queue='a')\n" + BODY)
    analysis = analyse([str(path)])
    (chosen,) = analysis.chosen.values()
    assert isinstance(chosen[0], Chosen)
    monkeypatch.setattr(
        "idemwatch.idempotency.task_rewrite.with_arguments",
        lambda *_, **__: "shared_task(base=IdempotentTask)",
    )
    with pytest.raises(CannotRewrite, match="an option of work would be lost"):
        rewritten(analysis.modules[str(path)], chosen)


def test_a_task_that_would_not_be_protected_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tasks.py"
    head = b"from celery import Task, shared_task\nO = {'base': Task}\n"
    path.write_bytes(head + b"@shared_task(**O)\n" + BODY)
    done = migrate(path)
    assert done.exit_code == 3 and "work would not be protected" in done.output
    assert path.read_bytes() == head + b"@shared_task(**O)\n" + BODY


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_no_content_is_too_strange_to_be_read(data: bytes) -> None:
    found = source_of("any.py", data)
    if isinstance(found, Source):
        assert found.encoded(found.text) == data
        parsed(found)

"""A task's options: each does what it says, and a wrong one is refused by its name and the task's.

And the categories of task_retry_policy, against the table of the design.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery
from idemwatch.idempotency import ConfigurationError, IdempotentTask, task_retry_policy
from idemwatch.idempotency.at_start import check
from idemwatch.idempotency.engine import MAX_HOLD_SECONDS
from idemwatch.idempotency.options import OPTIONS, SHORT, TaskOptions
from idemwatch.idempotency.redelivery import LONGEST_DELAY_SECONDS
from idemwatch.idempotency.settings import MAX_TTL

NAME = "tests.one"
SECONDS = timedelta(seconds=1)
HOUR = timedelta(hours=1)


def work(x: int = 1, y: int = 2, user_id: str = "u") -> int:
    return x + y


def new_app(**conf: Any) -> Celery:
    app = Celery("options", set_as_current=False)
    app.conf.update(idempotency_store="memory", **conf)
    return app


def register(app: Celery, base: type = IdempotentTask, **options: Any) -> Any:
    """The task, bound: Celery makes a task when it is first used."""
    task = app.task(name=NAME, base=base, shared=False, **options)(work)
    assert task.name == NAME
    return task


def options_of(conf: dict[str, Any] | None = None, **options: Any) -> TaskOptions:
    found: TaskOptions = register(new_app(**(conf or {})), **options).idempotency_options
    return found


def refusal(**options: Any) -> ConfigurationError:
    """What a worker's start says about a task."""
    app = new_app()
    with pytest.raises(ConfigurationError) as caught:
        app.task(name=NAME, base=IdempotentTask, shared=False, **options)(work)
        check(app)
    return caught.value


def key_of(task: Any, x: int) -> str:
    return f"work/{x}"


# -- what each option does -------------------------------------------------------------------------

# option: what is given, where it is found, what is found, what the settings would have said
EFFECTS: dict[str, tuple[Any, Callable[[TaskOptions], Any], Any, Any]] = {
    "key": (key_of, lambda o: o.rule.function, key_of, None),
    "key_args": (["x"], lambda o: o.rule.picked, ("x",), None),
    "ignore_args": (("y",), lambda o: o.rule.ignored, frozenset({"y"}), frozenset()),
    "scope": ("user", lambda o: o.rule.scope, "user", "global"),
    "ttl": (90, lambda o: o.ttl, 90 * SECONDS, 24 * HOUR),
    "lease": (timedelta(minutes=2), lambda o: o.lease, 120 * SECONDS, 30 * SECONDS),
    "max_hold": (3600.0, lambda o: o.max_hold, HOUR, None),
    "max_crashes": (7, lambda o: o.max_crashes, 7, 3),
    "authority": ("redis", lambda o: o.authority, "redis", "postgres"),
    "on_duplicate": ("raise", lambda o: o.on_duplicate, "raise", "replay"),
    "on_running": ("skip", lambda o: o.on_running, "skip", "wait"),
    "when_unavailable": ("run", lambda o: o.when_unavailable, "run", "retry"),
    "enabled": (False, lambda o: o.enabled, False, True),
    "at_publish": (True, lambda o: o.at_publish, True, False),
}
each_option = pytest.mark.parametrize("name", sorted(OPTIONS))  # a new one must be in the table


@each_option
def test_an_option_sets_its_own_field_alone(name: str) -> None:
    given, read, wanted, unset = EFFECTS[name]
    options = options_of(**{f"idempotency_{name}": given})
    assert read(options) == wanted
    assert read(options_of()) == unset
    for other in OPTIONS - {name}:
        assert EFFECTS[other][1](options) == EFFECTS[other][3], other


@each_option
def test_an_option_may_stand_in_a_base_class_and_the_task_wins(name: str) -> None:
    given, read, wanted, unset = EFFECTS[name]
    ours = type("Ours", (IdempotentTask,), {"abstract": True, f"idempotency_{name}": given})
    assert read(register(new_app(), ours).idempotency_options) == wanted
    silent = register(new_app(), ours, **{f"idempotency_{name}": None})
    assert read(silent.idempotency_options) == unset


SET: dict[str, Any] = {
    "scope": "device",
    "ttl": 5,
    "lease": 6,
    "max_crashes": 8,
    "authority": "redis",
    "on_duplicate": "skip",
    "on_running": "raise",
    "when_unavailable": "run",
    "enabled": False,
}


@pytest.mark.parametrize("name", sorted(SET))
def test_where_a_task_is_silent_the_settings_say(name: str) -> None:
    given, read, wanted, _ = EFFECTS[name]
    conf = {f"idempotency_{name}": SET[name]}
    plain = read(options_of(conf))
    assert plain == (SET[name] * SECONDS if name in ("ttl", "lease") else SET[name])
    if name != "enabled":
        assert read(options_of(conf, **{f"idempotency_{name}": given})) == wanted


def test_a_task_may_be_protected_where_the_settings_turn_protection_off() -> None:
    assert options_of({"idempotency_enabled": False}, idempotency_enabled=True).enabled


@pytest.mark.parametrize("name", SHORT)
def test_the_short_spelling_is_the_same_option(name: str) -> None:
    given, read, wanted, _ = EFFECTS[name]
    assert read(options_of(**{name: given})) == wanted
    assert read(options_of(**{name: given, f"idempotency_{name}": given})) == wanted


def test_the_limits_of_celery_bound_a_hold_and_a_wait() -> None:
    plain = options_of()
    assert plain.hold_seconds == MAX_HOLD_SECONDS == 6 * 3600
    assert plain.longest_delay_seconds == LONGEST_DELAY_SECONDS == 10
    transport = {"visibility_timeout": 6}
    tight = options_of({"task_time_limit": 90, "broker_transport_options": transport})
    assert (tight.hold_seconds, tight.longest_delay_seconds) == (90, 2)


@pytest.mark.parametrize("name", ["ttl", "lease", "max_hold"])
def test_a_duration_at_its_limit_is_taken(name: str) -> None:
    most = HOUR if name == "lease" else MAX_TTL
    for given in (SECONDS, most):
        options: dict[str, Any] = {f"idempotency_{name}": given}
        assert EFFECTS[name][1](options_of(**options)) == given


def test_max_crashes_at_its_limit_is_taken() -> None:
    for given in (1, 1000):
        assert options_of(idempotency_max_crashes=given).max_crashes == given


# -- what is refused -------------------------------------------------------------------------------


def assert_refused(name: str, **options: Any) -> None:
    error = refusal(**options)
    assert error.name == name
    assert f"task {NAME}" in error.problem
    assert str(error) == f"{name}: {error.problem}"


@pytest.mark.parametrize(("name", "near"), [("tll", "ttl"), ("scopes", "scope"), ("qqqq", "")])
def test_an_unknown_option_is_refused_with_the_nearest(name: str, near: str) -> None:
    error = refusal(**{f"idempotency_{name}": 5})
    assert error.name == f"idempotency_{name}"
    hint = f"; did you mean idempotency_{near}?" if near else ""
    assert error.problem == f"task {NAME}: no such option{hint}"


@pytest.mark.parametrize("name", ["options", "key_of"])
def test_a_name_of_our_own_is_no_option(name: str) -> None:
    assert_refused(f"idempotency_{name}", **{f"idempotency_{name}": {}})


DURATIONS: tuple[Any, ...] = (
    *("", "1h", "nan", float("nan"), float("inf"), 1e99, [], object(), True, False),
    *(0, -5, timedelta(microseconds=999_999)),
)
CHOICES = ("scope", "authority", "on_duplicate", "on_running", "when_unavailable")
WRONG: dict[str, tuple[Any, ...]] = {
    **{name: ("nonsense", "", 5, [], True) for name in CHOICES},
    "ttl": (*DURATIONS, MAX_TTL + timedelta(microseconds=1)),
    "lease": (*DURATIONS, HOUR + timedelta(microseconds=1)),  # as the setting of this name
    "max_hold": (*DURATIONS, MAX_TTL + timedelta(microseconds=1)),
    "max_crashes": ("", "7", 1.5, True, [], 0, -1, 1001),
    "enabled": ("", "true", 1, 0, []),
    "at_publish": ("", "true", 1, 0, []),
    "key": ("work", 5, ()),
    "key_args": ("x", 5, ("nope",), ("x", "nope"), (7,), {"x": 1}),
    "ignore_args": ("x", 5, ("nope",), (7,), b"xy"),
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n in sorted(OPTIONS) for v in WRONG[n]])
def test_a_wrong_value_is_refused_at_start(name: str, value: Any) -> None:
    assert_refused(f"idempotency_{name}", **{f"idempotency_{name}": value})


def test_a_parameter_that_is_not_there_is_answered_with_those_that_are() -> None:
    error = refusal(idempotency_key_args=("job",))
    assert error.problem == f"task {NAME} has no parameter 'job' (it has: x, y, user_id)"


def test_two_ways_to_make_a_key_are_refused() -> None:
    assert_refused("idempotency_key", idempotency_key=key_of, idempotency_key_args=("x",))


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("at_publish", {"at_publish": True, "scope": "task"}),
        ("at_publish", {"at_publish": True, "on_running": "keep_last"}),
        ("on_running", {"on_running": "keep_last", "scope": "task"}),
    ],
)
def test_options_that_contradict_each_other_are_refused(name: str, given: dict[str, Any]) -> None:
    assert_refused(f"idempotency_{name}", **{f"idempotency_{n}": v for n, v in given.items()})


def test_the_last_is_kept_for_a_task_that_says_so_and_never_for_all() -> None:
    assert options_of(on_running="keep_last").on_running == "keep_last"
    with pytest.raises(ConfigurationError, match="'keep_last' is not one of wait, skip, raise"):
        options_of({"idempotency_on_running": "keep_last"})


def test_an_argument_that_makes_the_key_cannot_be_ignored_too() -> None:
    error = refusal(idempotency_key_args=("x", "y"), idempotency_ignore_args=("y",))
    assert error.name in ("idempotency_key_args", "idempotency_ignore_args")
    assert f"task {NAME}" in error.problem and "'y'" in error.problem


@pytest.mark.parametrize("name", SHORT)
def test_both_spellings_with_two_values_are_refused(name: str) -> None:
    one, other = {"on_duplicate": ("skip", "raise"), "on_running": ("skip", "wait")}.get(
        name, ("run", "retry")
    )
    error = refusal(**{name: one, f"idempotency_{name}": other})
    assert error.name in (name, f"idempotency_{name}")
    for told in (f"task {NAME}", repr(one), repr(other)):
        assert told in error.problem


# -- delivery --------------------------------------------------------------------------------------

VOID = {
    "acks_late": "Work is never lost by being taken for a duplicate",
    "reject_on_worker_lost": "An attempt that died or lost its lease is repeated",
}


def test_a_message_outlives_its_worker_and_nothing_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    task = register(new_app(task_acks_late=False, task_reject_on_worker_lost=False))
    assert task.acks_late is True and task.reject_on_worker_lost is True
    assert caplog.records == []


@pytest.mark.parametrize("option", VOID)
def test_turning_delivery_off_warns_which_sentence_is_void(
    option: str, caplog: pytest.LogCaptureFixture
) -> None:
    off: dict[str, Any] = {option: False}
    task = register(new_app(), **off)
    assert getattr(task, option) is False
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    for told in (NAME, option, VOID[option]):
        assert told in warning.getMessage()


# -- categories ------------------------------------------------------------------------------------

# As in the design: TTL in hours, retries, backoff from and to in seconds, authority.
TABLE: dict[str, tuple[int, int, int, int, str]] = {
    "critical": (4, 5, 10, 10 * 60, "postgres"),
    "high_priority": (2, 5, 10, 10 * 60, "postgres"),
    "report": (24, 3, 60, 30 * 60, "postgres"),
    "email": (2, 5, 30, 15 * 60, "postgres"),
    "maintenance": (12, 2, 5 * 60, 60 * 60, "redis"),
}


@pytest.mark.parametrize("name", TABLE)
def test_a_category_gives_its_tasks_what_the_table_says(name: str) -> None:
    hours, retries, first, longest, authority = TABLE[name]
    task = register(new_app(), **task_retry_policy(name))
    assert task.idempotency_options.ttl == hours * HOUR
    assert task.idempotency_options.authority == authority
    assert task.max_retries == retries
    assert (task.retry_backoff, task.retry_backoff_max) == (first, longest)
    assert task.retry_jitter is task.acks_late is task.reject_on_worker_lost is True
    assert task.autoretry_for == (Exception,)


def test_what_is_given_beside_a_category_wins() -> None:
    policy = task_retry_policy("critical", idempotency_ttl=26 * HOUR, max_retries=0)
    task = register(new_app(), **policy)
    assert (task.idempotency_options.ttl, task.max_retries) == (26 * HOUR, 0)
    assert task_retry_policy("critical")["max_retries"] == 5


def test_an_unknown_category_is_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigurationError) as caught:
        task_retry_policy("urgent")
    assert caught.value.name == "task_retry_policy"
    for told in ("'urgent'", *TABLE):
        assert told in caught.value.problem

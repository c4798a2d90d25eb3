"""Errors: each survives pickle and Celery's backend, says what to do, and shows no secret."""

from __future__ import annotations

import copy
import pickle

import idemwatch.idempotency as public
import psycopg
import pytest
from celery import Celery
from celery.backends.base import Backend
from idemwatch.idempotency import errors
from idemwatch.idempotency.errors import ConfigurationError, IdempotencyError, StoreUnavailable
from idemwatch.idempotency.postgres_link import PostgresLink, unavailable
from idemwatch.idempotency.redis_link import RedisLink

KEY = "work:1"

# class: the arguments, its fields, words of the next step
CASES: dict[str, tuple[tuple[str, ...], dict[str, str], tuple[str, ...]]] = {
    "IdempotencyError": (("what happened",), {}, ("what happened",)),
    "ConfigurationError": (
        ("idempotency_ttl", "'x' is no duration"),
        {"name": "idempotency_ttl", "problem": "'x' is no duration"},
        ("idempotency_ttl: 'x' is no duration",),
    ),
    "InvalidKey": (("no key",), {}, ("no key",)),
    "UnencodableArgument": (
        ("items[2]", "NaN"),
        {"argument": "items[2]", "problem": "NaN"},
        ("'items[2]'", "NaN", "Pass a plain value", "idempotency_ignore_args"),
    ),
    "MissingScopeId": (
        ("user", "user_id"),
        {"scope": "user", "argument": "user_id"},
        ("'user'", "pass the argument 'user_id'", "'idempotency_user_id'", "idempotency_scope"),
    ),
    "StoreUnavailable": (
        ("redis", "refused"),
        {"store": "redis", "reason": "refused"},
        ("redis is unavailable: refused",),
    ),
    "StoreLeftOut": (
        ("redis", "it failed"),
        {"store": "redis", "reason": "it failed"},
        ("redis is unavailable: it failed",),
    ),
    "UnreadableRecord": (
        ("redis", "garbage"),
        {"store": "redis", "reason": "garbage"},
        ("redis is unavailable: garbage",),
    ),
    "SchemaMismatch": (
        ("postgres", "old"),
        {"store": "postgres", "reason": "old"},
        ("postgres is unavailable: old",),
    ),
    "AuthorityMismatch": ((KEY,), {"key": KEY}, ("drain the queue", "idemwatch keys forget")),
    "ArgumentMismatch": ((KEY,), {"key": KEY}, ("nothing was run", "idempotency_ignore_args")),
    "PoisonedKey": ((KEY,), {"key": KEY}, ("Find the cause", f"idemwatch keys forget {KEY}")),
    "DuplicateTask": ((KEY,), {"key": KEY}, ("finished already", "on_duplicate='raise'")),
    "AlreadyRunning": ((KEY,), {"key": KEY}, ("try again later",)),
    "LeaseLost": ((KEY,), {"key": KEY}, ("stop, and undo",)),
    "LockTimeout": ((KEY,), {"key": KEY}, ("not free within the time",)),
}
EVERY = sorted(
    name
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, IdempotencyError) and name[0] != "_"
)
each_error = pytest.mark.parametrize("name", EVERY)  # a new one must be in the table


def made(name: str) -> IdempotencyError:
    error: IdempotencyError = getattr(errors, name)(*CASES[name][0])
    return error


def assert_same(found: object, error: IdempotencyError, fields: dict[str, str]) -> None:
    assert type(found) is type(error) and str(found) == str(error)
    assert {field: getattr(found, field) for field in fields} == fields


@each_error
def test_an_error_tells_what_to_do_and_has_its_fields(name: str) -> None:
    _, fields, words = CASES[name]
    assert_same(made(name), made(name), fields)
    for told in (*words, *([KEY] if "key" in fields else [])):
        assert told in str(made(name))


@each_error
def test_an_error_or_the_kind_it_is_of_is_imported_from_the_front(name: str) -> None:
    kind = "StoreUnavailable" if name == "StoreLeftOut" else name
    assert kind in public.__all__ and isinstance(made(name), getattr(public, kind))


@each_error
@pytest.mark.parametrize("protocol", [0, 2, pickle.HIGHEST_PROTOCOL])
def test_an_error_survives_pickle_and_copy(name: str, protocol: int) -> None:
    error, fields = made(name), CASES[name][1]
    assert_same(pickle.loads(pickle.dumps(error, protocol)), error, fields)
    assert_same(copy.copy(error), error, fields)
    assert_same(copy.deepcopy(error), error, fields)


def backend(serializer: str) -> Backend:
    app = Celery("errors", set_as_current=False, backend="cache+memory://")
    app.conf.update(result_serializer=serializer, accept_content=["json", "pickle"])
    found: Backend = app.backend
    return found


@each_error
@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_an_error_survives_the_backend_of_celery(name: str, serializer: str) -> None:
    kept, error = backend(serializer), made(name)
    task_id = f"{serializer} {name}"  # the memory is the process's
    kept.mark_as_failure(task_id, error)
    meta = kept.get_task_meta(task_id, cache=False)
    assert meta["status"] == "FAILURE"
    assert_same(meta["result"], error, CASES[name][1])


@each_error
def test_an_error_raised_by_a_task_is_raised_by_its_result(name: str) -> None:
    app = Celery("errors", set_as_current=False, broker="memory://")
    error = made(name)

    def fail() -> None:
        raise error

    result = app.task(name="tests.fail", shared=False)(fail).apply()
    with pytest.raises(type(error)) as caught:
        result.get()
    assert str(caught.value) == str(error)


def test_a_kind_of_error_is_caught_by_its_kind() -> None:
    for name in ("StoreLeftOut", "UnreadableRecord", "SchemaMismatch"):
        assert isinstance(made(name), StoreUnavailable)
    for name in ("UnencodableArgument", "MissingScopeId"):
        assert isinstance(made(name), public.InvalidKey)


@each_error
def test_a_key_with_braces_is_told_as_it_is(name: str) -> None:
    if "key" in CASES[name][1]:
        assert "order:{0}:{key}" in str(getattr(errors, name)("order:{0}:{key}"))
    else:
        assert "{0}" in str(getattr(errors, name)(*["{0}"] * len(CASES[name][0])))


# -- secrets ---------------------------------------------------------------------------------------

SECRET = "hunter2"


def chain(error: BaseException | None) -> list[str]:
    """All that would be logged of an error, ours alone: a driver's own texts are its causes."""
    texts = []
    while error is not None:
        if isinstance(error, IdempotencyError):
            texts += [str(error), repr(error), repr(error.args)]
        error = error.__cause__
    return texts


@pytest.mark.parametrize(
    "url",
    [
        f"redis://user:{SECRET}@127.0.0.1:1/0",
        f"redis://:{SECRET}@no-such-host.invalid:1/0",
        f"unix://user:{SECRET}@/no/such/socket",
    ],
)
def test_a_redis_that_is_away_is_told_without_its_password(url: str) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        RedisLink.from_url(url).call("PING")
    assert SECRET not in "".join(chain(caught.value))
    assert caught.value.store == "redis" and caught.value.reason


def test_a_postgresql_that_is_away_is_told_without_its_password() -> None:
    url = f"postgresql://user:{SECRET}@127.0.0.1:1/db"
    with pytest.raises(psycopg.OperationalError) as refused:
        psycopg.connect(url)
    assert SECRET not in "".join(chain(unavailable(refused.value)))


@pytest.mark.parametrize(
    "url", [f"postgresql://u:{SECRET}@h/db?nonsense=1", f"password={SECRET} x"]
)
def test_a_wrong_url_is_refused_unseen(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        PostgresLink(url)
    assert SECRET not in "".join(chain(caught.value))
    assert caught.value.__suppress_context__


def test_a_drivers_long_text_is_one_short_line() -> None:
    error = unavailable(psycopg.OperationalError("line one\n\n" + "x" * 1000))
    assert "\n" not in str(error) and len(str(error)) < 300
    assert "no reason given" in str(unavailable(psycopg.OperationalError()))

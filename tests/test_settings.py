"""Settings: read from conf over the environment; wrong ones refused by name, secrets unseen."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from idemwatch.idempotency.app_settings import reread_settings, settings_of
from idemwatch.idempotency.errors import ConfigurationError
from idemwatch.idempotency.settings import MAX_TTL, NAMES, Settings, load

PASSWORD = "hunter2"

# name: the default, a text in the environment and its meaning, a value in conf and its meaning
VALUES: dict[str, tuple[Any, str, Any, Any, Any]] = {
    "redis_url": (None, "redis://env:1/2", "redis://env:1/2", "unix:///r.sock", "unix:///r.sock"),
    "database_url": (None, "postgres://e/d", "postgres://e/d", "postgresql://c", "postgresql://c"),
    "database_pooled": (None, "true", True, False, False),
    "store": ("servers", "memory", "memory", "servers", "servers"),
    "enabled": (True, "false", False, True, True),
    "namespace": ("idemwatch", "Env-1.a_b", "Env-1.a_b", "conf", "conf"),
    "authority": ("postgres", "redis", "redis", "postgres", "postgres"),
    "scope": ("global", "user", "user", "device", "device"),
    "ttl": (timedelta(hours=24), "60", timedelta(minutes=1), timedelta(days=2), timedelta(days=2)),
    "lease": (timedelta(seconds=30), "1.5", timedelta(seconds=1.5), 45, timedelta(seconds=45)),
    "max_crashes": (3, "7", 7, 9, 9),
    "on_duplicate": ("replay", "skip", "skip", "raise", "raise"),
    "on_running": ("wait", "skip", "skip", "raise", "raise"),
    "when_unavailable": ("retry", "run", "run", "retry", "retry"),
    "max_result_bytes": (1_000_000, "0", 0, 5, 5),
    "region": ("", "eu-1", "eu-1", "us-2", "us-2"),
    "metrics_address": (None, "127.0.0.1:9912", "127.0.0.1:9912", ":1", ":1"),
    "metrics_advertise": (None, "web-1", "web-1", "10.0.0.5:9", "10.0.0.5:9"),
    "metrics_web_config": (None, "/env.yml", "/env.yml", "/conf.yml", "/conf.yml"),
    "metrics_dir": (None, "/env", "/env", "/conf", "/conf"),
    "schedule_capacity": (None, "8", 8, 9, 9),
    "sync_beat_schedule": (True, "false", False, True, True),
}
each_setting = pytest.mark.parametrize("name", sorted(NAMES))  # a new one must be in the table
each_secret = pytest.mark.parametrize("name", ["redis_url", "database_url"])


@pytest.fixture(autouse=True)
def _no_settings_in_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    for found in [v for v in os.environ if v.startswith("IDEMWATCH_")]:
        monkeypatch.delenv(found)


def variable(name: str) -> str:
    return "IDEMWATCH_" + name.upper()


def refusal(conf: Mapping[str, object], environ: Mapping[str, str]) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        load(conf, environ)
    assert str(caught.value) == f"{caught.value.name}: {caught.value.problem}"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    return caught.value


def assert_unseen(error: BaseException) -> None:
    """The password is in nothing that a log shows of the error, nor in what is pickled of it."""
    assert PASSWORD not in "".join(traceback.format_exception(error)) + repr(error)
    assert PASSWORD.encode() not in pickle.dumps(error)


@each_setting
def test_conf_wins_over_the_environment_and_that_over_the_default(name: str) -> None:
    default, text, from_environ, value, from_conf = VALUES[name]
    environ = {variable(name): text, "PATH": "/bin", "OTHER_TTL": "x"}
    conf = {"idempotency_" + name: value, "task_always_eager": True, "ttl": 5}
    none, below, both = load({}, {}), load({}, environ), load(conf, environ)
    assert getattr(none, name) == default
    assert getattr(below, name) == from_environ != default
    assert getattr(both, name) == from_conf != from_environ
    assert replace(below, **{name: default}) == replace(both, **{name: default}) == none


def test_an_empty_variable_leaves_an_optional_setting_unset() -> None:
    assert load({}, {variable(n): "" for n in NAMES if VALUES[n][0] is None}) == load({}, {})


@pytest.mark.parametrize("text", ["1", "true", "yes", " TRUE ", "0", "false", "no", " False\n"])
def test_a_flag_has_several_spellings(text: str) -> None:
    meaning = text.strip().lower() in ("1", "true", "yes")
    assert load({}, {"IDEMWATCH_ENABLED": text}).enabled is meaning


def test_settings_do_not_change_and_do_not_show_urls() -> None:
    settings = Settings(redis_url=f"redis://{PASSWORD}", database_url=f"postgres://{PASSWORD}")
    assert "region=''" in repr(settings) and PASSWORD not in repr(settings)
    with pytest.raises(FrozenInstanceError):
        settings.region = "us"  # type: ignore[misc]


@each_secret
def test_a_secret_file_wins_over_its_variable_and_conf_over_both(name: str, tmp_path: Path) -> None:
    _, in_file, _, other, _ = VALUES[name]
    (tmp_path / "secret").write_text(f" {in_file}\n")
    both = {variable(name) + "_FILE": str(tmp_path / "secret"), variable(name): str(other)}
    for environ in (both, dict(reversed(both.items()))):
        assert getattr(load({}, environ), name) == in_file
        assert getattr(load({"idempotency_" + name: other}, environ), name) == other


@each_secret
def test_an_unreadable_secret_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(f"redis://:{PASSWORD}@h/".encode() + b"\xff")
    for path in (tmp_path / "binary", tmp_path, tmp_path / "missing"):
        error = refusal({}, {variable(name) + "_FILE": str(path)})
        assert error.name == variable(name) + "_FILE" and str(path) in error.problem
        assert_unseen(error)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    told = "no such setting; did you mean idempotency_ttl?"
    assert refusal({"idempotency_tll": 5}, {}).args == ("idempotency_tll", told)
    assert refusal({}, {"IDEMWATCH_TLL": "5"}).args == ("IDEMWATCH_TLL", told)
    assert refusal({"idempotency_qqqq": 5}, {}).problem == "no such setting"
    for file in (variable(name) + "_FILE" for name in NAMES - {"redis_url", "database_url"}):
        assert refusal({}, {file: "/dev/null"}).name == file  # only a secret may stand in a file


CHOICES = ("store", "authority", "scope", "on_duplicate", "on_running", "when_unavailable")
SPANS: tuple[object, ...] = ("", "1h", "nan", "inf", "1e99", [], 0, timedelta(microseconds=999_999))
COUNTS: tuple[object, ...] = ("", "x", "1.5", True, [], -1)
WRONG: dict[str, tuple[object, ...]] = {
    **{name: (5, []) for name in NAMES},
    **{name: ("nonsense", "", 5, []) for name in CHOICES},
    "ttl": (*SPANS, MAX_TTL + timedelta(microseconds=1)),
    "lease": (*SPANS, timedelta(hours=1, microseconds=1)),
    "max_crashes": (*COUNTS, 0, 1001),
    "max_result_bytes": COUNTS,
    "schedule_capacity": (*COUNTS[1:], 0),
    "sync_beat_schedule": ("", "on", "2", 2, []),
    "enabled": ("", "on", "2", 2, []),
    "namespace": ("", "a b", "a:b", "é", "a\n", "x" * 65, 5),
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n in sorted(NAMES) for v in WRONG[n]])
def test_a_wrong_value_is_refused_by_name(name: str, value: object) -> None:
    assert refusal({"idempotency_" + name: value}, {}).name == "idempotency_" + name
    if isinstance(value, str):
        assert refusal({}, {variable(name): value}).name == "idempotency_" + name


def test_a_value_at_its_limit_is_taken() -> None:
    least, most = timedelta(seconds=1), timedelta(hours=1)
    low = Settings(ttl=least, lease=least, max_crashes=1, max_result_bytes=0, namespace="x")
    high = Settings(ttl=MAX_TTL, lease=most, max_crashes=1000, namespace="x" * 64)
    for settings in (low, high):
        assert load({"idempotency_" + n: getattr(settings, n) for n in NAMES}, {}) == settings


# {} is user:password; urlsplit takes the password of the fourth for a port
BAD_URLS = ["http://{}@h", "host=h password={}", "SCHEME://{}@h:port", "SCHEME://{}/x@h"]


@each_secret
@pytest.mark.parametrize("url", [*BAD_URLS, "SCHEME://{}@[h", "SCHEMEs3://{}@h", "{}@h"])
def test_a_bad_url_is_refused_unseen(name: str, url: str, tmp_path: Path) -> None:
    scheme = {"redis_url": "redis", "database_url": "postgresql"}[name]
    url = url.format(f"u:{PASSWORD}").replace("SCHEME", scheme)
    (tmp_path / "secret").write_text(url)
    in_conf, in_file = (
        {"idempotency_" + name: url},
        {variable(name) + "_FILE": f"{tmp_path}/secret"},
    )
    for error in (refusal(in_conf, {}), refusal({}, {variable(name): url}), refusal({}, in_file)):
        assert error.name == "idempotency_" + name
        assert_unseen(error)


@pytest.mark.parametrize("scheme", ["redis", "rediss", "unix", "postgresql", "postgres"])
def test_each_url_has_its_own_schemes(scheme: str) -> None:
    url, names = f"{scheme}://h/0", ["redis_url", "database_url"]
    right, wrong = reversed(names) if scheme.startswith("postgres") else names
    assert getattr(load({"idempotency_" + right: url}, {}), right) == url
    assert repr(scheme) in refusal({"idempotency_" + wrong: url}, {}).problem


def app_of(conf: Mapping[str, object], namespace: str | None = None) -> Celery:
    app = Celery(set_as_current=False)
    app.config_from_object(dict(conf), namespace=namespace)
    return app


@each_setting
@pytest.mark.parametrize("namespace", [None, "CELERY", "JOBS"])
def test_an_app_sets_each_setting_over_the_environment(
    name: str, namespace: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    default, text, from_environ, value, meaning = VALUES[name]
    option = f"{namespace}_IDEMPOTENCY_{name.upper()}" if namespace else "idempotency_" + name
    monkeypatch.setenv(variable(name), text)
    assert getattr(settings_of(app_of({}, namespace)), name) == from_environ
    settings = settings_of(app_of({option: value}, namespace))
    assert getattr(settings, name) == meaning != from_environ
    assert replace(settings, **{name: default}) == Settings()


def test_an_unknown_or_wrong_setting_of_an_app_is_refused_until_it_is_right() -> None:
    with pytest.raises(ConfigurationError, match=r"^idempotency_tll: .*idempotency_ttl"):
        settings_of(app_of({"idempotency_tll": 5}))
    wrong = app_of({"CELERY_IDEMPOTENCY_SCOPE": "nonsense"}, "CELERY")
    with pytest.raises(ConfigurationError, match=r"^idempotency_scope: "):
        settings_of(wrong)
    wrong.conf.idempotency_scope = "user"
    assert settings_of(wrong).scope == "user"


REFUSED: dict[str, Callable[[], object]] = {
    "a URL of a wrong type is shown": lambda: load({"idempotency_redis_url": [PASSWORD]}, {}),
    "infinity": lambda: load({"idempotency_max_crashes": float("inf")}, {}),
    "2.7 is taken as 2": lambda: load({"idempotency_max_crashes": 2.7}, {}),
    "a path with a NUL": lambda: load({}, {"IDEMWATCH_REDIS_URL_FILE": "a\0b"}),
    "an empty secret is none": lambda: load({}, {"IDEMWATCH_REDIS_URL_FILE": "/dev/null"}),
    "an unknown name under a namespace": lambda: settings_of(
        app_of({"CELERY_IDEMPOTENCY_TLL": 5}, "CELERY")
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_meant_is_refused(what: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        REFUSED[what]()
    assert_unseen(caught.value)


def test_a_database_url_may_name_several_hosts() -> None:
    assert load({"idempotency_database_url": "postgresql://h:5432,i:5432/d"}, {}).database_url


def test_settings_are_read_once_for_each_app_until_reread(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = app_of({}), app_of({"idempotency_region": "conf"})
    before = settings_of(first)
    assert (before.region, settings_of(second).region) == ("", "conf")
    monkeypatch.setenv("IDEMWATCH_REGION", "later")
    assert load({}, {}).region == ""
    monkeypatch.setenv("IDEMWATCH_SCOPE", "user")
    assert settings_of(first) is before and settings_of(second).scope == "global"
    reread_settings()
    assert (settings_of(first).region, settings_of(first).scope) == ("later", "user")
    assert (settings_of(second).region, settings_of(second).scope) == ("conf", "user")

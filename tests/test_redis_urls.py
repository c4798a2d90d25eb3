"""The addresses of several Redis servers: what they lead to, and what a wrong one is told."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import pytest
from idemwatch.idempotency import redis_urls, settings
from idemwatch.idempotency.errors import ConfigurationError, StoreUnavailable
from idemwatch.idempotency.redis_cluster import ClusterLink, place_told, table_of
from idemwatch.idempotency.redis_link import RedisLink, told
from idemwatch.idempotency.redis_sentinel import SentinelLink
from idemwatch.idempotency.redis_urls import places_of
from idemwatch.idempotency.settings import Settings, load
from redis.exceptions import MovedError
from support import commands

SECRET = "s3cr3t"
CLOSED = "127.0.0.1:1,127.0.0.1:2"


def test_a_url_of_sentinels_names_them_the_service_and_both_logins() -> None:
    places = places_of(
        f"redis+sentinel://me:{SECRET}@one:26379,[::1]:26380,three/my-master/2"
        "?sentinel_username=watch&sentinel_password=oth%2Fer&health_check_interval=5"
    )
    assert places is not None and not places.tls
    assert places.addresses == (("one", 26379), ("::1", 26380), ("three", 26379))
    assert (places.service, places.database) == ("my-master", "2")
    assert places.url_of(("m", 6379)) == f"redis://me:{SECRET}@m:6379/2?health_check_interval=5"
    sentinel = places.sentinel_url(("::1", 26380))
    assert sentinel == "redis://[::1]:26380/0?username=watch&password=oth%2Fer"


def test_a_url_of_a_cluster_names_nodes_and_keeps_its_options_of_tls() -> None:
    places = places_of(f"rediss+cluster://:{SECRET}@one:7000,two?ssl_ca_certs=/ca.pem")
    assert places is not None and places.tls
    assert places.addresses == (("one", 7000), ("two", 6379))
    assert places.url_of(("two", 6379)) == (f"rediss://:{SECRET}@two:6379/0?ssl_ca_certs=%2Fca.pem")


def as_newer_pythons_do(url: str) -> SplitResult:
    """Since CPython's gh-105704 a bracket is refused that does not begin and end the host."""
    host = urlsplit(url).netloc.rpartition("@")[2]
    if not re.fullmatch(r"[^\[\]]*|\[[^\[\]]*\](:.*)?", host):
        raise ValueError("Invalid IPv6 URL")
    return urlsplit(url)


def test_hosts_of_ipv6_stand_anywhere_in_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (redis_urls, settings):
        monkeypatch.setattr(module, "urlsplit", as_newer_pythons_do)
    url = f"redis+cluster://:%5B{SECRET}%5D@one,[::1],[::2]:7001"
    assert Settings(redis_url=url).redis_url == url
    places = places_of(url)
    assert places is not None
    assert places.addresses == (("one", 6379), ("::1", 6379), ("::2", 7001))
    assert places.url_of(("::1", 1)) == f"redis://:%5B{SECRET}%5D@[::1]:1/0"
    Settings(redis_url="redis://[::1]:6379/0")


def test_tls_of_sentinels_has_the_options_of_the_servers() -> None:
    places = places_of("rediss+sentinel://one/m?ssl_cert_reqs=none&sentinel_password=x")
    assert places is not None
    assert places.sentinel_url(("one", 1)) == "rediss://one:1/0?password=x&ssl_cert_reqs=none"


@pytest.mark.parametrize("url", ["redis://h/0", "rediss://h:1", "unix:///r.sock"])
def test_a_single_server_is_as_it_was(url: str) -> None:
    assert places_of(url) is None
    assert type(RedisLink.from_url(url)) is RedisLink


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis+sentinel://u:{s}@h:26379", "names no service"),
        ("redis+sentinel://u:{s}@h:26379/", "names no service"),
        ("redis+sentinel://u:{s}@h:26379/m/first", "database is a number"),
        ("redis+sentinel://u:{s}@/m", "names no servers"),
        ("redis+sentinel://u:{s}@h:26379,/m", "names no servers"),
        ("redis+sentinel://u:{s}@h:port/m", "valid host or port"),
        ("redis+sentinel://u:{s}@h:99999/m", "valid host or port"),
        ("redis+sentinel://u:{s}@x@h:1/m", "%40"),
        ("redis+sentinel://h:1/m?sentinel_pasword={s}", "sentinel_username and sentinel_password"),
        ("redis+cluster://u:{s}@h:7000/1", "database 0 alone"),
        ("redis+cluster://u:{s}@h:7000?db=3", "database 0 alone"),
        ("redis+cluster://h:7000?sentinel_password={s}", "has no sentinels"),
        ("redis+cluster://u:{s}@", "names no servers"),
        ("redis+sentinel://u:{s}@[h:1/m", "valid host or port"),
        ("redis+cluster:h:7000", "names no servers"),
        ("redis://u:{s}@[h:1/0", "not a URL"),
        ("sentinel://u:{s}@h:26379", "redis+sentinel://"),
        ("redis-cluster://u:{s}@h:26379", "redis+cluster://"),
    ],
)
def test_a_wrong_url_is_told_what_to_write_and_shows_no_secret(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings(redis_url=url.format(s=SECRET))
    assert caught.value.name == "idempotency_redis_url"
    assert says in str(caught.value) and SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:{s}@h/0?nonsense=1",
        "rediss://:{s}@h/0?ssl_cert_reqs=nonsense",
        "redis+sentinel://:{s}@h/m?nonsense=1",
        "redis+cluster://:{s}@h?nonsense=1",
    ],
)
def test_an_option_that_no_connection_takes_is_told_before_the_first_call(url: str) -> None:
    with pytest.raises(ConfigurationError, match="nonsense") as caught:
        RedisLink.from_url(url.format(s=SECRET))
    assert SECRET not in str(caught.value)


def test_the_doctor_refuses_a_wrong_url_of_its_option() -> None:
    done = commands.invoke("doctor", "--redis-url", f"redis+sentinel://:{SECRET}@h:1")
    assert done.exit_code != 0 and SECRET not in done.output
    assert "--redis-url: names no service" in done.output


def test_what_redis_py_refuses_is_told_by_the_setting() -> None:
    with pytest.raises(ConfigurationError, match="idempotency_redis_url"):
        RedisLink.from_url("redis+cluster://h:1?socket_timeout=soon")


def test_the_whole_url_with_its_secrets_may_stand_in_a_file(tmp_path: Path) -> None:
    url = f"redis+sentinel://:{SECRET}@h:26379/m?sentinel_password={SECRET}"
    (tmp_path / "url").write_text(url + "\n")
    settings = load({}, {"IDEMWATCH_REDIS_URL_FILE": str(tmp_path / "url")})
    assert settings.redis_url == url and SECRET not in repr(settings)
    assert SECRET not in told(ValueError(f"cannot use {url}"))


@pytest.mark.parametrize(
    ("url", "kind", "says"),
    [
        (f"redis+sentinel://:{SECRET}@{CLOSED}/m?sentinel_password={SECRET}", SentinelLink,
         "no sentinel leads to a master"),
        (f"redis+cluster://:{SECRET}@{CLOSED}", ClusterLink, "no node tells the slots"),
    ],
)  # fmt: skip
def test_servers_are_asked_at_the_first_call_and_their_absence_is_told(
    url: str, kind: type[RedisLink], says: str
) -> None:
    link = RedisLink.from_url(url)  # connects to nothing: it may be made before a fork
    assert type(link) is kind
    with pytest.raises(StoreUnavailable, match=says) as caught:
        link.call("GET", "x")
    assert SECRET not in str(caught.value) and "Connection refused" in str(caught.value)
    assert link.breaker.is_open
    with pytest.raises(StoreUnavailable, match="did not answer a moment ago"):
        link.call("GET", "x")
    link.close()


def test_a_node_that_does_not_know_its_own_name_is_the_one_that_was_asked() -> None:
    rows = [
        [0, 9, [b"", 7000, b"id"]],
        [10, 19, [None, 7001, b"id", []], [b"r", 7003, b"id"]],
        [20, 29, [b"?", 7004, b"id"]],
        [30, 16383, [b"other", 7002, b"id"]],
    ]
    table = table_of(rows, ("asked", 7000))
    assert (table[0], table[19]) == (("asked", 7000), ("asked", 7001))
    assert (table[29], table[16383]) == (("asked", 7004), ("other", 7002))
    assert table_of(rows[:1], ("asked", 7000))[16383] is None


@pytest.mark.parametrize(
    ("told", "place"),
    [
        ("10 other:7001", ("other", 7001)),
        ("10 ::1:7001", ("::1", 7001)),
        ("10 :7001", ("asked", 7001)),
        ("10 ?:7001", ("asked", 7001)),  # it has no hostname, and is to tell that
    ],
)
def test_a_redirection_names_a_place(told: str, place: tuple[str, int]) -> None:
    assert place_told(MovedError(told), ("asked", 7000)) == place

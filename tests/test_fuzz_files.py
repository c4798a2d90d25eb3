"""Files and settings of any bytes: read, or refused with an error of ours, and in time.

Texts of each format are fuzzed beside their readers; here are bytes, and what is far too large.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from idemwatch.exporter.web_config import load as load_web_config
from idemwatch.idempotency.errors import ConfigurationError, IdempotencyError
from idemwatch.idempotency.settings import NAMES, Settings, load
from idemwatch.scheduler.sources import read_source
from support.fuzz import fuzz, odd

PIECES = st.sampled_from([
    b"\xff\xfe", b"\xef\xbb\xbf", b"\0", b"\xed\xa0\x80", b"\r", b"\n", b"\t", b" ",
    b"*/5 * * * * true\n", b"name,task,cron\n", b'"', b"'", b",", b"- ", b": ", b"{", b"[",
    b"}", b"]", b"&a ", b"*a ", b"<<: ", b"kind: CronJob\n", b"spec:\n  schedule: ",
    b"!!python/object/apply:os.system [id]\n", b"1" * 5000, b"tls_server_config:\n",
    b"basic_auth_users:\n  u: ", b"$2y$10$", b"http_server_config:\n  headers:\n", b"CRON_TZ=",
    b"9" * 400, b"1e999", b"---\n", b"%YAML 9\n", b"? ",
])  # fmt: skip
BYTES = st.binary(max_size=60) | st.lists(PIECES | st.binary(max_size=4), max_size=25).map(b"".join)
LARGE = {
    "lists": b"[" * 200_000,
    "maps": b"{a: " * 100_000,
    "indents": b"".join(b" " * n + b"a:\n" for n in range(2_000)),
    "dashes": b"- " * 100_000,
    "quotes": b'"' + b'a""' * 200_000,
    "commas": b"name,task,cron\n" + b"," * 500_000,
    "digits": b"kind: CronJob\nspec: {schedule: " + b"9" * 200_000 + b"}",
    "numbers": b"basic_auth_users: {u: " + b"9" * 200_000 + b"}",
    "aliases": b"a0: &a0 [x, x]\n"
    + b"".join(b"a%d: &a%d [*a%d, *a%d]\n" % (n, n, n - 1, n - 1) for n in range(1, 60)),
    "blanks": b"*/5 * * * *" + b" " * 500_000 + b"x",
    "stars": b"*," * 200_000 + b"* * * * * x\n",
    "NULs": b"\0" * 200_000,
}
each_kind = pytest.mark.parametrize("kind", ["crontab", "csv", "k8s", "web"])


def read(kind: str, path: Path) -> None:
    """Read a file; what it refuses, it refuses in our words."""
    with suppress(IdempotencyError):
        if kind == "web":
            load_web_config(path)
        else:
            read_source(f"{kind}:{path}", app=None, settings=Settings())


@each_kind
@fuzz(60)
@given(data=BYTES)
def test_any_bytes_are_read_or_refused_in_our_words(tmp_path: Path, kind: str, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    read(kind, path)


@each_kind
@pytest.mark.parametrize("name", LARGE)
def test_what_is_far_too_large_is_read_or_refused_in_seconds(
    tmp_path: Path, kind: str, name: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(LARGE[name])
    began = time.monotonic()
    read(kind, path)
    assert time.monotonic() - began < 15


@fuzz(50)
@given(st.dictionaries(st.sampled_from(sorted(NAMES)), odd, max_size=4))
def test_any_setting_is_taken_or_refused_by_name(values: dict[str, object]) -> None:
    conf = {f"idempotency_{name}": value for name, value in values.items()}
    refused = refusal(conf, {})
    assert refused is None or any(name in refused for name in values)


@fuzz(150)
@given(st.dictionaries(st.sampled_from(sorted(NAMES)), st.text(max_size=20), max_size=4))
def test_any_variable_is_taken_or_refused_by_name(values: dict[str, str]) -> None:
    environ = {f"IDEMWATCH_{name.upper()}": value for name, value in values.items()}
    refused = refusal({}, environ)
    assert refused is None or any(name in refused.lower() for name in values)


def refusal(conf: dict[str, object], environ: dict[str, str]) -> str | None:
    """Why settings are refused, if they are."""
    try:
        load(conf, environ)
    except ConfigurationError as refused:
        return str(refused)
    return None

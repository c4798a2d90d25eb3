"""The web config: the toolkit's format, errors that name the key, and re-reading."""

from __future__ import annotations

import base64
import builtins
import logging
import os
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import trustme
from idemwatch.exporter.web_auth import MAX_WAITING, BasicAuth
from idemwatch.exporter.web_config import WatchedWebConfig, load
from idemwatch.exporter.web_tls import openssl_name
from idemwatch.idempotency.errors import ConfigurationError

HASH = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "empty.pem").touch()
    return tmp_path


@pytest.fixture
def write(folder: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = folder / "web.yml"
        path.write_text(text)
        os.utime(path, ns=(time.monotonic_ns(), time.monotonic_ns()))
        return path

    return write


def header(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


FULL = f"""\
tls_server_config:
  cert_file: server.pem
  key_file: server.pem
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.pem
  client_allowed_sans: [prometheus.example]
  min_version: TLS12
  max_version: TLS13
  cipher_suites:
    - TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    - TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
  curve_preferences: [CurveP256]
  prefer_server_cipher_suites: false
http_server_config:
  http2: false
  headers:
    X-Frame-Options: deny
basic_auth_users:
  alice: {HASH}
"""


def test_a_full_file_is_taken(write: Callable[[str], Path]) -> None:
    config = load(write(FULL))
    assert config.context is not None
    assert config.context.verify_mode == ssl.CERT_REQUIRED
    assert config.context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert config.allowed_sans == ("prometheus.example",)
    assert config.headers == (("X-Frame-Options", "deny"),)
    assert config.auth.allows(header("alice", "secret"))
    assert [path.name for path in config.files] == ["web.yml", "server.pem", "server.pem", "ca.pem"]


@pytest.mark.parametrize("text", ["", "# nothing\n", "tls_server_config:\nbasic_auth_users:\n"])
def test_an_empty_file_asks_nothing(write: Callable[[str], Path], text: str) -> None:
    config = load(write(text))
    assert config.context is None
    assert config.auth.allows(None)


TLS = "tls_server_config:\n  cert_file: server.pem\n  key_file: server.pem\n"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("tls_server_confg: {}\n", ("line 1: tls_server_confg:", "did you mean tls_server_config")),
        ("rate_limit: {}\n", ("line 1: rate_limit: no such key", "known are tls_server_config")),
        (
            TLS + "  cert_fil: x\n",
            ("line 4: tls_server_config.cert_fil:", "did you mean cert_file"),
        ),
        (
            "tls_server_config:\n  cert_file: server.pem\n",
            ("key_file: is missing",),
        ),
        (
            "tls_server_config:\n  key_file: server.pem\n",
            ("cert_file: is missing",),
        ),
        ("tls_server_config: [1]\n", ("line 1: tls_server_config: must be keys",)),
        ("- 1\n", ("the file: must be keys",)),
        (TLS.replace("cert_file: server", "cert_file: gone"), ("line 2", "cert_file: cannot read")),
        (TLS.replace("server.pem", "empty.pem"), ("cert_file: no certificate",)),
        (TLS + "  min_version: TLS9\n", ("min_version: 'TLS9' is not one of TLS12, TLS13",)),
        (TLS + "  min_version: TLS13\n  max_version: TLS12\n", ("min_version: is above",)),
        (TLS + "  client_auth_type: Maybe\n", ("client_auth_type: 'Maybe' is not one of",)),
        (TLS + "  client_auth_type: RequireAnyClientCert\n", ("unverified certificates",)),
        (TLS + "  client_auth_type: RequireAndVerifyClientCert\n", ("client_ca_file: is needed",)),
        (TLS + "  client_ca_file: ca.pem\n", ("client_auth_type: must be set",)),
        (TLS + "  client_allowed_sans: [a]\n", ("client_allowed_sans: needs client_ca_file",)),
        (
            TLS + "  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: empty.pem\n",
            ("line 5: tls_server_config.client_ca_file: no certificates",),
        ),
        (TLS + "  cipher_suites: [TLS_NONSENSE]\n", ("cipher_suites: OpenSSL has none",)),
        (TLS + "  cipher_suites: TLS_X\n", ("cipher_suites: must be a list",)),
        (TLS + "  curve_preferences: [CurveX]\n", ("curve_preferences: 'CurveX' is not one of",)),
        (TLS + "  curve_preferences: [CurveP256, X25519]\n", ("name one, or none",)),
        (TLS + "  prefer_server_cipher_suites: maybe\n", ("'maybe' is not one of true, false",)),
        (
            TLS + "  cert_file: server.pem\n",
            ("line 4", "cert_file: is given twice"),
        ),
        ("basic_auth_users:\n  alice: secret\n", ("line 2: basic_auth_users.alice", "htpasswd")),
        ("basic_auth_users:\n  alice: [a]\n", ("basic_auth_users.alice: must be a string",)),
        ("http_server_config:\n  headers:\n    X-Evil: 1\n", ("headers.X-Evil: no such key",)),
        (
            'http_server_config:\n  headers:\n    X-Frame-Options: "a\\r\\nb"\n',
            ("headers.X-Frame-Options: must be one line",),
        ),
        ("a: b: c\n", ("is not YAML: line 1",)),
        ("a: \x00", ("is not YAML",)),
        ("[" * 60_000, ("is not YAML",)),
        ("? [a]\n: 1\n", ("a key must be a plain string",)),
        ("!!python/object/apply:os.system ['false']\n", ("the file: must be keys",)),
        ("#" * 70_000, ("larger than 65536 bytes",)),
    ],
)
def test_errors_name_file_key_and_remedy(
    write: Callable[[str], Path], text: str, wanted: Sequence[str]
) -> None:
    path = write(text)
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    for part in wanted:
        assert part in message


def test_aliases_that_blow_up_cost_nothing(write: Callable[[str], Path]) -> None:
    lines = ['a0: &a0 ["x", "x"]'] + [
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40)
    ]
    with pytest.raises(ConfigurationError, match="a0: no such key"):
        load(write("\n".join(lines)))
    with pytest.raises(ConfigurationError, match="client_allowed_sans: must be a list"):
        load(write(TLS + "  client_allowed_sans: &a [[*a, *a], [*a, *a]]\n"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"gone\.yml: cannot be read \(No such file"):
        load(tmp_path / "gone.yml")


@pytest.mark.parametrize("module", ["yaml", "bcrypt"])
def test_a_missing_extra_is_named(
    write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == module:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigurationError, match=rf"needs {module}: pip install idemwatch\[web\]"):
        load(write(FULL))


def test_names_of_cipher_suites_are_openssls() -> None:
    known = {cipher["name"] for cipher in _ciphers()}
    for suite in (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        "TLS_RSA_WITH_AES_128_GCM_SHA256",
    ):
        assert openssl_name(suite) in known


def _ciphers() -> Sequence[Mapping[str, Any]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context.get_ciphers()


def test_a_changed_file_is_read_again(write: Callable[[str], Path], folder: Path) -> None:
    watched = WatchedWebConfig(write(TLS))
    first = watched.current()
    assert watched.current() is first
    write(TLS + f"basic_auth_users:\n  bob: {HASH}\n")
    assert watched.current().auth.allows(header("bob", "secret"))
    assert not watched.current().auth.allows(None)
    second = watched.current()
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
        folder / "server.pem"
    )
    os.utime(folder / "server.pem", ns=(1, 1))
    assert watched.current().context is not second.context


def test_a_file_gone_bad_leaves_the_last_good_one(
    write: Callable[[str], Path], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(f"basic_auth_users:\n  bob: {HASH}\n")
    watched = WatchedWebConfig(path)
    good = watched.current()
    with caplog.at_level(logging.ERROR):
        write("basic_auth_users:\n  bob: plain\n")
        assert watched.current() is good
        assert watched.current() is good
    assert len(caplog.records) == 1
    assert "basic_auth_users.bob" in caplog.text
    path.unlink()
    assert watched.current() is good
    write("")
    assert watched.current().auth.allows(None)


def test_a_file_gone_bad_whose_certificate_comes_back_is_read(
    write: Callable[[str], Path], folder: Path
) -> None:
    watched = WatchedWebConfig(write(TLS))
    good = watched.current()
    pem = (folder / "server.pem").read_bytes()
    (folder / "server.pem").write_bytes(b"half")
    assert watched.current() is good
    (folder / "server.pem").write_bytes(pem)
    assert watched.current() is not good


def test_passwords() -> None:
    auth = BasicAuth({"alice": HASH})
    assert auth.allows(header("alice", "secret"))
    assert auth.allows(header("alice", "secret"))
    assert auth.allows(header("alice", "secret").replace("Basic", "basic"))
    for wrong in (
        None,
        "",
        "Basic",
        "Basic !",
        "Bearer x",
        header("alice", "Secret"),
        header("bob", "secret"),
        header("alice", "secret\0"),
        header("alice", "s" * 1000),
        "Basic " + base64.b64encode(b"alice").decode(),
        "Basic " + base64.b64encode(b"\xff:secret").decode(),
    ):
        assert not auth.allows(wrong), wrong


def test_a_right_password_costs_bcrypt_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bytes] = []
    real = bcrypt.checkpw

    def checkpw(password: bytes, hashed: bytes) -> bool:
        calls.append(hashed)
        return real(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", checkpw)
    auth = BasicAuth({"alice": HASH})
    for _ in range(3):
        assert auth.allows(header("alice", "secret"))
    assert len(calls) == 1
    assert not auth.allows(header("mallory", "secret"))
    assert len(calls) == 2
    assert calls[1][:7] == HASH[:7].encode(), "an unknown user costs as much as a known one"
    assert b"secret" not in b"".join(auth._right)


@pytest.mark.parametrize("prefix", ["$2a$", "$2b$", "$2y$"])
def test_all_spellings_of_bcrypt_are_taken(write: Callable[[str], Path], prefix: str) -> None:
    hashed = prefix + HASH[4:]
    config = load(write(f"basic_auth_users:\n  alice: {hashed}\n"))
    assert config.auth.allows(header("alice", "secret"))


def test_a_flood_of_wrong_passwords_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    auth = BasicAuth({"alice": HASH})
    assert auth.allows(header("alice", "secret"))
    comparing, done = threading.Event(), threading.Event()

    def checkpw(password: bytes, hashed: bytes) -> bool:
        comparing.set()
        return not done.wait(30)

    monkeypatch.setattr(bcrypt, "checkpw", checkpw)
    flood = [
        threading.Thread(target=auth.allows, args=(header("alice", str(number)),))
        for number in range(MAX_WAITING)
    ]
    for thread in flood:
        thread.start()
    assert comparing.wait(30)
    deadline = time.monotonic() + 30
    while auth._waiting._value and time.monotonic() < deadline:
        comparing.wait(0)
    assert not auth.allows(header("alice", "one more"))
    assert auth.allows(header("alice", "secret")), "who is known need not wait"
    done.set()
    for thread in flood:
        thread.join(30)

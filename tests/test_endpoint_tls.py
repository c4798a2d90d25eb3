"""Passwords and TLS before the endpoint, as the web config says."""

from __future__ import annotations

import base64
import contextlib
import http.client
import socket
import ssl
import time
from pathlib import Path

import bcrypt
import pytest
import trustme
from support.scraping import Start, get

HASH = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
BASIC = {"Authorization": "Basic " + base64.b64encode(b"alice:secret").decode()}

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def test_passwords_guard_all_but_the_probes(start: Start, tmp_path: Path) -> None:
    web = tmp_path / "web.yml"
    web.write_text(
        f"basic_auth_users:\n  alice: {HASH}\n"
        "http_server_config:\n  headers:\n    X-Frame-Options: deny\n"
    )
    running = start(web_config=web)
    for path in ("/metrics", "/", "/unknown"):
        got = get(running, path)
        assert got.status == 401
        assert got.headers["WWW-Authenticate"].startswith("Basic")
        assert got.headers["X-Frame-Options"] == "deny"
    assert get(running, "/metrics", BASIC).status == 200
    assert get(running, "/-/healthy").status == 200
    assert get(running, "/-/ready").status == 200
    web.write_text("# open\n")
    assert get(running, "/metrics").status == 200
    web.write_text("nonsense: 1\n")
    assert get(running, "/metrics").status == 200


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls_config(authority: trustme.CA, tmp_path: Path) -> Path:
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    web = tmp_path / "web.yml"
    web.write_text("tls_server_config:\n  cert_file: server.pem\n  key_file: server.pem\n")
    return web


def client(authority: trustme.CA, name: str | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if name:
        authority.issue_cert(name).configure_cert(context)
    return context


def test_tls(start: Start, authority: trustme.CA, tls_config: Path) -> None:
    running = start(web_config=tls_config)
    assert running.url.startswith("https://127.0.0.1:")
    assert get(running, "/metrics", tls=client(authority)).status == 200
    with pytest.raises((http.client.HTTPException, OSError)):
        get(running, "/metrics")


def test_client_certificates(start: Start, authority: trustme.CA, tls_config: Path) -> None:
    with tls_config.open("a") as file:
        file.write("  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n")
        file.write("  client_allowed_sans: [prometheus.example]\n")
    running = start(web_config=tls_config)
    allowed = client(authority, "prometheus.example")
    assert get(running, "/metrics", tls=allowed).status == 200
    assert get(running, "/metrics", tls=client(authority, "other.example")).status == 403
    for stranger in (client(authority), client(authority)):
        with pytest.raises(OSError):
            get(running, "/-/healthy", tls=stranger)
    foreign = client(authority)
    trustme.CA().issue_cert("prometheus.example").configure_cert(foreign)
    with pytest.raises(OSError):
        get(running, "/metrics", tls=foreign)


def test_a_new_certificate_is_used_without_a_restart(
    start: Start, authority: trustme.CA, tls_config: Path
) -> None:
    running = start(web_config=tls_config)
    assert get(running, "/metrics", tls=client(authority)).status == 200
    renewed = trustme.CA()
    pem = renewed.issue_cert("127.0.0.1").private_key_and_cert_chain_pem
    pem.write_to_path(tls_config.parent / "server.pem")
    assert get(running, "/metrics", tls=client(renewed)).status == 200


def test_half_done_handshakes_do_not_delay_a_scrape(
    start: Start, authority: trustme.CA, tls_config: Path
) -> None:
    running = start(web_config=tls_config)
    with contextlib.ExitStack() as stack:
        for number in range(50):
            sock = stack.enter_context(socket.create_connection(running.address, timeout=30))
            sock.sendall(b"\x16\x03\x01\x02\x00"[: number % 6])
        began = time.monotonic()
        assert get(running, "/metrics", tls=client(authority)).status == 200
        assert time.monotonic() - began < 3

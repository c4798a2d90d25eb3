"""The TLS side of a web config: from its checked values to an `ssl.SSLContext`.

Names are those of Go's crypto/tls, as the Prometheus exporter-toolkit takes them; OpenSSL's are
derived. What Python's ssl cannot do is refused by name, never silently weakened.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

VERSIONS: Final = {
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}
CLIENT_AUTH: Final = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
UNVERIFIED: Final = ("RequestClientCert", "RequireAnyClientCert")
CURVES: Final = {
    "CurveP256": "prime256v1",
    "CurveP384": "secp384r1",
    "CurveP521": "secp521r1",
    "X25519": "X25519",
}

Refuse = Callable[[str, str], Exception]
"""Makes the error for a key of `tls_server_config` and its problem."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig:
    """`tls_server_config`, with paths resolved against the folder of the web config."""

    cert_file: Path
    key_file: Path
    client_auth_type: str = "NoClientCert"
    client_ca_file: Path | None = None
    client_allowed_sans: tuple[str, ...] = ()
    min_version: str = "TLS12"
    max_version: str = "TLS13"
    cipher_suites: tuple[str, ...] = ()
    curve_preferences: tuple[str, ...] = ()
    prefer_server_cipher_suites: bool = True

    @property
    def files(self) -> tuple[Path, ...]:
        own = (self.cert_file, self.key_file)
        return own if self.client_ca_file is None else (*own, self.client_ca_file)


def make_context(config: TlsConfig, refuse: Refuse) -> ssl.SSLContext:
    """The context of `config`. Raises what `refuse` makes for the key that is wrong."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load_certificate(context, config, refuse)
    _set_versions(context, config, refuse)
    _set_clients(context, config, refuse)
    _set_ciphers(context, config, refuse)
    return context


def _load_certificate(context: ssl.SSLContext, config: TlsConfig, refuse: Refuse) -> None:
    for key, path in (("cert_file", config.cert_file), ("key_file", config.key_file)):
        _check_readable(key, path, refuse)
    try:
        # An encrypted key would ask for its password at the terminal, and stop the worker there.
        context.load_cert_chain(config.cert_file, config.key_file, password=_no_password)
    except (ssl.SSLError, ValueError, OSError) as error:
        problem = f"no certificate and its key in {config.cert_file} and {config.key_file}"
        raise refuse("cert_file", f"{problem} ({_brief(error)})") from error


def _no_password() -> str:
    raise ValueError("the key is encrypted; give it without a password")


def _check_readable(key: str, path: Path, refuse: Refuse) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise refuse(key, f"cannot read {path} ({error.strerror})") from error


def _set_versions(context: ssl.SSLContext, config: TlsConfig, refuse: Refuse) -> None:
    least, most = VERSIONS[config.min_version], VERSIONS[config.max_version]
    if least > most:
        raise refuse("min_version", f"is above max_version {config.max_version}")
    context.minimum_version, context.maximum_version = least, most


def _set_clients(context: ssl.SSLContext, config: TlsConfig, refuse: Refuse) -> None:
    mode = CLIENT_AUTH[config.client_auth_type]
    if config.client_ca_file is None:
        if mode is not ssl.CERT_NONE:
            raise refuse("client_ca_file", f"is needed by {config.client_auth_type}")
        if config.client_allowed_sans:
            raise refuse("client_allowed_sans", "needs client_ca_file and a client_auth_type")
        return
    if mode is ssl.CERT_NONE:
        raise refuse("client_auth_type", "must be set too, or no client is asked")
    _check_readable("client_ca_file", config.client_ca_file, refuse)
    try:
        context.load_verify_locations(config.client_ca_file)
    except (ssl.SSLError, OSError) as error:
        problem = f"no certificates in {config.client_ca_file} ({_brief(error)})"
        raise refuse("client_ca_file", problem) from error
    context.verify_mode = mode


def _set_ciphers(context: ssl.SSLContext, config: TlsConfig, refuse: Refuse) -> None:
    if config.prefer_server_cipher_suites:
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    names = [openssl_name(name) for name in config.cipher_suites]
    try:
        if names:
            context.set_ciphers(":".join(names))
    except ssl.SSLError as error:
        raise refuse("cipher_suites", f"OpenSSL has none of {', '.join(names)}") from error
    if len(config.curve_preferences) > 1:
        raise refuse("curve_preferences", "Python can set one curve alone: name one, or none")
    for curve in config.curve_preferences:
        context.set_ecdh_curve(CURVES[curve])


def openssl_name(suite: str) -> str:
    """OpenSSL's name for an IANA one: TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, for example."""
    name = suite.removeprefix("TLS_").removeprefix("RSA_WITH_").replace("_WITH_", "_")
    for size in ("128", "256"):
        name = name.replace(f"AES_{size}", f"AES{size}")
    name = name.replace("CHACHA20_POLY1305_SHA256", "CHACHA20_POLY1305").replace("_CBC_", "_")
    return name.replace("_", "-")


def client_allowed(certificate: dict[str, Any] | None, allowed: Sequence[str]) -> bool:
    """Whether a verified client certificate names one of `allowed`; all are when it is empty."""
    if not allowed:
        return True
    names = (certificate or {}).get("subjectAltName", ())
    return any(value in allowed for _, value in names)


def _brief(error: Exception) -> str:
    return getattr(error, "reason", None) or str(error)

"""The sandbox over TLS, for those who insist on https: the names are AWS's,
the certificate is made for the occasion.
"""

from __future__ import annotations

import datetime
import functools
import os
import shutil
import ssl
import tempfile
import threading
from pathlib import Path
from typing import Any

_making = threading.Lock()
_application: Any = None
_directory: Path | None = None


def configure(application: Any) -> None:
    """Say what is to be served."""
    global _application
    _application = application


def front() -> tuple[Path, int]:
    """The certificate to trust, and the port; made at the first call."""
    with _making:
        return _front()


def clean_up() -> None:
    """Remove the key."""
    if _directory:
        shutil.rmtree(_directory, ignore_errors=True)


@functools.cache
def _front() -> tuple[Path, int]:
    from werkzeug.serving import make_server

    from ..server import Handler

    global _directory
    _directory = Path(tempfile.mkdtemp(prefix="wekactl-tls-"))
    certificate, key = _certificate(_directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = make_server(
        "127.0.0.1",
        0,
        _application,
        threaded=True,
        request_handler=Handler,
        ssl_context=context,
    )
    server.daemon_threads = True  # type: ignore[attr-defined]
    threading.Thread(
        target=server.serve_forever, daemon=True, name="tls"
    ).start()
    return certificate, server.server_port


def _certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for every region's APIs, and its key."""
    import boto3
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sandbox")])
    regions = boto3.Session().get_available_regions("ec2")
    names = [f"*.execute-api.{region}.amazonaws.com" for region in regions]
    today = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=2))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(n) for n in names]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, secret = directory / "certificate.pem", directory / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    descriptor = os.open(secret, os.O_WRONLY | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    return certificate, secret

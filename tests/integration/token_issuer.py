"""An OIDC token endpoint for one client, as an identity provider has it: RS256 tokens, the public key as a JWKS file."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

CLIENT, SECRET, AUDIENCE = "svc-go2hooks", "a client's secret", "kafka"


class Issuer(NamedTuple):
    """Where it answers, and the file that a broker reads its key from."""

    url: str
    jwks: Path


@contextmanager
def issuing(directory: Path) -> Iterator[Issuer]:
    """Tokens are valid for five minutes, as librdkafka wants them to be for a while."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            expected = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
            known = self.headers["Authorization"] == f"Basic {expected}"
            body = {"access_token": _token(key), "token_type": "Bearer", "expires_in": 300}
            answer = json.dumps(body if known else {"error": "invalid_client"}).encode()
            self.send_response(200 if known else 401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_args: object) -> None:
            pass

    path = directory / "jwks.json"
    numbers = key.public_key().public_numbers()
    modulus, exponent = (_base64(n.to_bytes((n.bit_length() + 7) // 8)) for n in (numbers.n, numbers.e))
    path.write_text(json.dumps({"keys": [{"kty": "RSA", "kid": "1", "alg": "RS256", "n": modulus, "e": exponent}]}))
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield Issuer(f"http://127.0.0.1:{server.server_address[1]}/token", path)
        server.shutdown()


def _token(key: rsa.RSAPrivateKey) -> str:
    now = int(time.time())
    head = {"alg": "RS256", "typ": "JWT", "kid": "1"}
    claims = {"sub": CLIENT, "aud": AUDIENCE, "iat": now, "exp": now + 300}
    signed = ".".join(_base64(json.dumps(part).encode()) for part in (head, claims))
    return f"{signed}.{_base64(key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

"""An issuer of tokens for tests: real keys, a real HTTP server on loopback."""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

AUDIENCE = "segmamba"


@dataclass(frozen=True)
class SigningKey:
    """A private key with the id under which its public half is listed."""

    algorithm: str
    id: str
    private: Any

    @classmethod
    def make(cls, algorithm: str, key_id: str) -> SigningKey:
        private = {
            "RS256": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
            "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
            "EdDSA": ed25519.Ed25519PrivateKey.generate,
        }[algorithm]()
        return cls(algorithm, key_id, private)

    @property
    def listed(self) -> dict[str, Any]:
        """The public half, as a key set has it."""
        public = jwt.get_algorithm_by_name(self.algorithm).to_jwk(
            self.private.public_key(), as_dict=True
        )
        return {**public, "kid": self.id, "use": "sig", "alg": self.algorithm}

    @property
    def public_pem(self) -> bytes:
        public = self.private.public_key()
        return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


class Issuer:
    """Serves a discovery document and a key set; counts how often each is fetched."""

    def __init__(self, *keys: SigningKey) -> None:
        self.keys = list(keys)
        self.fetched: list[str] = []
        self.delay_seconds = 0.0
        self.key_set: bytes | None = None
        self.claimed: str | None = None
        self.jwks_url: str | None = None
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.fetched.append(self.path)
                time.sleep(issuer.delay_seconds)
                body = issuer.answer(self.path)
                with suppress(BrokenPipeError):  # nobody waits for a slow issuer
                    self.send_response(404 if body is None else 200)
                    self.end_headers()
                    self.wfile.write(body or b"")

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )

    def __enter__(self) -> Issuer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Answer no more."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._server.server_close()
            self._thread.join(10)

    def answer(self, path: str) -> bytes | None:
        if path == "/.well-known/openid-configuration":
            keys = self.jwks_url or f"{self.url}/keys"
            return json.dumps({"issuer": self.claimed or self.url, "jwks_uri": keys}).encode()
        if path == "/keys":
            listed = json.dumps({"keys": [key.listed for key in self.keys]}).encode()
            return listed if self.key_set is None else self.key_set
        return None

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Claims of a good token; a change to None leaves a claim out."""
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "jane.doe@hospital.example",
            "iat": now,
            "exp": now + 600,
            "scope": "openid segment",
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, key: SigningKey | None = None, **changes: Any) -> str:
        """A signed token."""
        key = key or self.keys[0]
        return jwt.encode(
            self.claims(**changes), key.private, key.algorithm, headers={"kid": key.id}
        )

"""An authorization server's part in tests: keys, and tokens signed by them."""

from __future__ import annotations

import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER = "https://login.example"
AUDIENCE = "https://mcp.example"


class Issuer:
    """Signs with a key of each kind; ids are "rsa", "ec" and "ed"."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {
            "rsa": rsa.generate_private_key(public_exponent=65537, key_size=2048),
            "ec": ec.generate_private_key(ec.SECP256R1()),
            "ed": ed25519.Ed25519PrivateKey.generate(),
        }

    def jwks(self, *ids: str) -> bytes:
        """The public keys as a JWK set; all, or those named."""
        makers = {"rsa": RSAAlgorithm, "ec": ECAlgorithm, "ed": OKPAlgorithm}
        found = []
        for id in ids or self.keys:
            public = makers[id].to_jwk(self.keys[id].public_key(), as_dict=True)  # type: ignore[attr-defined]
            found.append({**public, "kid": id, "use": "sig"})
        return json.dumps({"keys": found}).encode()

    def token(
        self, id: str = "ec", *, alg: str | None = None, headers: dict[str, Any] | None = None, **claims: Any
    ) -> str:
        """A token that is good for an hour; claims of None are left out."""
        now = time.time()
        usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "iat": int(now), "exp": int(now) + 3600}
        found = {key: value for key, value in {**usual, **claims}.items() if value is not None}
        algorithm = alg or {"rsa": "RS256", "ec": "ES256", "ed": "EdDSA"}[id]
        return jwt.encode(found, self.keys[id], algorithm, headers={"kid": id, **(headers or {})})

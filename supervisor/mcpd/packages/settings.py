"""What the installers need to know of the daemon's surroundings: where registries are, and how they are reached.

It comes from npm's, pip's and uv's own variables and files, and goes nowhere else. Of their variables those are passed
on that say whence; those that say whither are mcpd's to decide.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from mcpd.config import environment
from mcpd.sandbox.bubblewrap import HOME


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NPM: Final = _words(
    "registry proxy https_proxy http_proxy noproxy ca cafile cert strict_ssl fetch_retries fetch_retry_factor "
    "fetch_retry_mintimeout fetch_retry_maxtimeout fetch_timeout maxsockets replace_registry_host before"
)
_PIP: Final = _words(
    "INDEX_URL EXTRA_INDEX_URL NO_INDEX FIND_LINKS TRUSTED_HOST CERT CLIENT_CERT PROXY TIMEOUT DEFAULT_TIMEOUT "
    "RETRIES KEYRING_PROVIDER USE_FEATURE USE_DEPRECATED"
)
_UV: Final = _words(
    "DEFAULT_INDEX INDEX INDEX_URL EXTRA_INDEX_URL INDEX_STRATEGY FIND_LINKS NO_INDEX INSECURE_HOST NATIVE_TLS "
    "SYSTEM_CERTS HTTP_TIMEOUT HTTP_RETRIES KEYRING_PROVIDER EXCLUDE_NEWER"
)
_OTHERS: Final = _words(
    "HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY SSL_CERT_FILE SSL_CERT_DIR NODE_EXTRA_CA_CERTS REQUESTS_CA_BUNDLE "
    "CURL_CA_BUNDLE NETRC"
)
_FILES: Final = _words(
    "SSL_CERT_FILE SSL_CERT_DIR NODE_EXTRA_CA_CERTS REQUESTS_CA_BUNDLE CURL_CA_BUNDLE PIP_CERT PIP_CLIENT_CERT "
    "PIP_FIND_LINKS UV_FIND_LINKS UV_INDEX_URL PIP_INDEX_URL NPM_CONFIG_CAFILE NETRC"
)
_INDEX: Final = ("INDEX_URL", "EXTRA_INDEX_URL", "FIND_LINKS", "NO_INDEX")
_PIP_INDEX: Final = re.compile(r"^\s*(?:extra[-_])?(?:index[-_]url|find[-_]links|no[-_]index)\s*=", re.MULTILINE)
_PATIENCE: Final = {
    "npm_config_fetch_retries": "1",
    "npm_config_fetch_retry_mintimeout": "1000",
    "PIP_RETRIES": "1",
    "UV_HTTP_RETRIES": "1",
}
"""The restart rules try again, and tell so; tools that try for minutes tell nothing."""
_LARGEST: Final = 256 * 1024
_NAMED_BY: Final = re.compile(
    r"^(?P<key>[ \t]*(?:\S*:)?(?:cafile|certfile|keyfile|cert|client[-_]cert|find[-_]links)[ \t]*=[ \t]*)"
    r"(?P<quote>[\"']?)(?P<value>[^\r\n]*?)(?P=quote)[ \t]*$",
    re.MULTILINE,
)
"""Lines of `.npmrc` and `pip.conf` that name files. (`cert` of npm is the certificate itself, and then no path.)"""
_VARIABLE: Final = re.compile(r"(?<!\\)\$\{([^}?]+)\}")


@dataclass(frozen=True, slots=True)
class Sources:
    """Variables for the installers, files that these name, and files to be laid into their sandbox."""

    variables: Mapping[str, str] = field(default_factory=dict)
    paths: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Path inside, and content: the configuration of the daemon's user, which may hold a key to a private registry."""
    pip_has_index: bool = False
    """Only pip was told where to look, so uv must not be used instead."""


def look_up(environ: Mapping[str, str]) -> Sources:
    """Of the daemon's environment and its user's files."""
    variables = {name: value for name, value in environ.items() if _is_passed(name)}
    files, texts = {}, {}
    named: list[str] = []
    for inside, variable, candidates in _configurations(environ):
        content = _first(candidates)
        if content is not None:
            text = content.decode("utf-8", "surrogateescape")
            text, paths = _translated(text, environ, is_npms=inside.endswith("npmrc"))
            named += paths
            files[inside] = text.encode("utf-8", "surrogateescape")
            texts[inside] = text
            if variable:
                variables[variable] = inside
    pip = any(f"PIP_{name}" in environ for name in _INDEX)
    pip = pip or any(_PIP_INDEX.search(text) for inside, text in texts.items() if inside.endswith("pip.conf"))
    uv = any(f"UV_{name}" in environ for name in (*_INDEX, "INDEX", "DEFAULT_INDEX"))
    uv = uv or any(inside.endswith("uv.toml") for inside in texts)
    named = [*_named(variables), *named]
    return Sources({**_PATIENCE, **variables}, tuple(dict.fromkeys(named)), files, pip and not uv)


def _is_passed(name: str) -> bool:
    upper = name.upper()
    if upper in _OTHERS:
        return True
    kind, _, rest = name.partition("_")
    match kind.upper():
        case "PIP":
            return rest in _PIP
        case "UV":
            return rest in _UV or re.fullmatch(r"INDEX_\w+_(?:USERNAME|PASSWORD)", rest) is not None
        case "NPM":
            key = rest.removeprefix("config_").removeprefix("CONFIG_")
            return key != rest and (key.lower().replace("-", "_") in _NPM or key.startswith(("@", "//")))
    return False


def _configurations(environ: Mapping[str, str]) -> list[tuple[str, str, list[Path]]]:
    """(path inside, the variable that names it, where it may be outside), the first that is there counts."""
    home, config = environment.home(environ), environment.config_home(environ)
    named = {key: [Path(environ[key])] if environ.get(key) else [] for key in ("PIP_CONFIG_FILE", "UV_CONFIG_FILE")}
    npm = next((environ[key] for key in environ if key.lower() == "npm_config_userconfig"), None)
    return [
        (f"{HOME}/.npmrc", "npm_config_userconfig", [Path(npm)] if npm else [home / ".npmrc"]),
        (
            f"{HOME}/pip.conf",
            "PIP_CONFIG_FILE",
            named["PIP_CONFIG_FILE"] or [config / "pip" / "pip.conf", home / ".pip" / "pip.conf"],
        ),
        ("/etc/pip.conf", "", [Path("/etc/pip.conf")]),
        (f"{HOME}/global-npmrc", "npm_config_globalconfig", _global_npmrc(environ)),
        (
            f"{HOME}/uv.toml",
            "UV_CONFIG_FILE",
            named["UV_CONFIG_FILE"] or [config / "uv" / "uv.toml", Path("/etc/uv/uv.toml")],
        ),
    ]


def _global_npmrc(environ: Mapping[str, str]) -> list[Path]:
    """npm's settings for the machine: where they are asked for, else beside the npm that is used (docs.npmjs.com)."""
    named = next((environ[key] for key in environ if key.lower() == "npm_config_globalconfig"), None)
    if named:
        return [Path(named)]
    npm = shutil.which("npm", path=environ.get("PATH"))
    return [Path(npm).parent.parent / "etc" / "npmrc", Path("/etc/npmrc")] if npm is not None else []


def _translated(text: str, environ: Mapping[str, str], *, is_npms: bool) -> tuple[str, list[str]]:
    """A configuration as it is to be read inside, where home and variables are others; and the files that it names."""
    if is_npms:  # npm puts variables in itself; those that hold a registry's key are not there inside
        text = _VARIABLE.sub(lambda found: environ.get(found[1], found[0]), text)
    paths: list[str] = []

    def absolute(found: re.Match[str]) -> str:
        words = []
        for word in found["value"].split() if "find" in found["key"] else [found["value"]]:
            path = unquote(urlsplit(word).path) if word.startswith("file://") else word
            if path.startswith("~/"):
                path = word = str(environment.home(environ) / path[2:])
            if path.startswith("/") and os.path.exists(path):
                paths.append(path)
            words.append(word)
        return f"{found['key']}{found['quote']}{' '.join(words)}{found['quote']}"

    return _NAMED_BY.sub(absolute, text), paths


def _first(candidates: list[Path]) -> bytes | None:
    for path in candidates:
        try:
            with path.open("rb") as file:
                return file.read(_LARGEST)
        except OSError:
            continue
    return None


def _named(variables: Mapping[str, str]) -> list[str]:
    """The files and directories that the variables name."""
    found = []
    for name, value in variables.items():
        if name.upper() not in _FILES:
            continue
        for word in value.split():
            path = unquote(urlsplit(word).path) if word.startswith("file://") else word
            if path.startswith("/") and os.path.exists(path):
                found.append(path)
    return found

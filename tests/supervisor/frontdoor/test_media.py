"""Content-Type and Accept."""

from __future__ import annotations

import pytest

from mcpd.frontdoor import media
from mcpd.frontdoor.asgi import Refusal

BOTH = b"application/json, text/event-stream"


def status(check, **headers: bytes) -> int:  # type: ignore[no-untyped-def]
    try:
        check({name.replace("_", "-").encode(): value for name, value in headers.items()})
    except Refusal as refused:
        return refused.reply.status
    return 200


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        (b"application/json", 200),
        (b"Application/JSON; charset=utf-8", 200),
        (b"application/jsonp", 415),
        (b"text/plain", 415),
        (b"", 415),
    ],
)
def test_the_body_must_be_json(declared: bytes, expected: int) -> None:
    assert status(media.check_post, content_type=declared, accept=BOTH) == expected
    assert status(media.check_json, content_type=declared) == expected


def test_a_body_without_type_is_refused() -> None:
    assert status(media.check_post, accept=BOTH) == 415


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (BOTH, 200),
        (b"text/event-stream;q=0.5 , APPLICATION/JSON", 200),
        (b"*/*", 200),
        (b"application/*, text/*", 200),
        (b"application/json", 406),
        (b"text/event-stream", 406),
        (b"text/html", 406),
        (b"", 406),
    ],
)
def test_both_forms_of_answer_must_be_accepted(accept: bytes, expected: int) -> None:
    assert status(media.check_post, content_type=b"application/json", accept=accept) == expected
    assert status(media.check_post, content_type=b"application/json", accept=accept) == expected


def test_no_accept_takes_anything() -> None:
    assert status(media.check_post, content_type=b"application/json") == 200
    assert status(media.check_events) == 200


@pytest.mark.parametrize(("accept", "expected"), [(b"text/event-stream", 200), (b"application/json", 406)])
def test_a_stream_must_be_accepted(accept: bytes, expected: int) -> None:
    assert status(media.check_events, accept=accept) == expected


def test_what_is_remembered_is_bounded() -> None:
    for number in range(media.CACHED * 2):
        assert status(media.check_post, content_type=b"application/json;v=%d" % number, accept=BOTH) == 200
    assert len(media._POSTABLE) <= media.CACHED

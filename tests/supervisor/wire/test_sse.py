"""Server-sent events as bytes."""

from mcpd.wire import eras, sse


def test_event_with_and_without_id() -> None:
    assert sse.encode(b"{}") == b"event: message\r\ndata: {}\r\n\r\n"
    assert sse.encode(b"{}", event=b"endpoint", event_id=b"1-2") == b"id: 1-2\r\nevent: endpoint\r\ndata: {}\r\n\r\n"


def test_priming_event_has_an_id_and_no_data() -> None:
    assert sse.priming(b"1-0") == b"id: 1-0\r\ndata: \r\n\r\n"
    assert sse.priming(b"1-0", 500) == b"id: 1-0\r\nretry: 500\r\ndata: \r\n\r\n"


def test_negotiation_takes_what_is_known_and_else_the_latest() -> None:
    assert eras.negotiate("2024-11-05") == "2024-11-05"
    assert eras.negotiate("2031-01-01") == eras.LATEST_HANDSHAKE == "2025-11-25"

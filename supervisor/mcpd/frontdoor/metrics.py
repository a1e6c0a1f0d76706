"""What the front door counts, and the text that Prometheus reads.

Counting is adding to an int; prometheus-client is imported by the first scrape.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class Metric(msgspec.Struct, frozen=True):
    """One metric family. `samples`: label values (in the order of `labels`) -> value."""

    name: str
    help: str
    kind: Literal["counter", "gauge"]
    labels: tuple[str, ...]
    samples: Mapping[tuple[str, ...], float]


Source = Callable[[], Iterable[Metric]]


@dataclass(slots=True)
class Counters:
    """What happened since the start. Written on the event loop only."""

    requests: Counter[str] = field(default_factory=Counter)  # by endpoint
    refused: Counter[int] = field(default_factory=Counter)  # by status
    limited: Counter[str] = field(default_factory=Counter)  # by the bound that was reached
    sessions_opened: Counter[str] = field(default_factory=Counter)  # by transport
    sessions_closed: Counter[str] = field(default_factory=Counter)  # by reason
    streamed: int = 0  # answers that needed an event stream
    resumed: int = 0  # streams taken up again by Last-Event-ID
    errors: int = 0  # requests that ended in an error of ours

    def reached(self, limit: str) -> None:
        """Count a refusal, if it was for a bound."""
        if limit:
            self.limited[limit] += 1

    def metrics(self) -> Iterator[Metric]:
        yield by("mcpd_http_requests", "Requests that came in", "endpoint", self.requests)
        yield by(
            "mcpd_http_refused",
            "Requests refused before they reached a server",
            "status",
            {str(status): count for status, count in self.refused.items()},
        )
        yield by("mcpd_http_limited", "Requests and connections ended by a limit", "limit", self.limited)
        yield by("mcpd_sessions_opened", "Sessions opened", "transport", self.sessions_opened)
        yield by("mcpd_sessions_closed", "Sessions closed", "reason", self.sessions_closed)
        yield single("mcpd_http_streamed", "Answers sent as an event stream", "counter", self.streamed)
        yield single("mcpd_http_resumed", "Streams resumed by Last-Event-ID", "counter", self.resumed)
        yield single("mcpd_http_errors", "Requests that ended in an internal error", "counter", self.errors)


def single(name: str, help: str, kind: Literal["counter", "gauge"], value: float) -> Metric:
    """A metric without labels."""
    return Metric(name, help, kind, (), {(): value})


def by(name: str, help: str, label: str, counts: Mapping[str, int]) -> Metric:
    """A counter with one label."""
    return Metric(name, help, "counter", (label,), {(key,): count for key, count in counts.items()})


def render(sources: Iterable[Source]) -> bytes:
    """The metrics of all sources in Prometheus' text format."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector

    class Values(Collector):
        def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
            for source in sources:
                for metric in source():
                    family = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
                    made = family(metric.name, metric.help, labels=metric.labels)
                    for labels, value in metric.samples.items():
                        made.add_metric(labels, value)
                    yield made

    registry = CollectorRegistry()
    registry.register(Values())
    return generate_latest(registry)

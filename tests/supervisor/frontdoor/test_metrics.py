"""What Prometheus reads."""

from __future__ import annotations

import subprocess
import sys

from prometheus_client.parser import text_string_to_metric_families

from mcpd.frontdoor.metrics import Counters, Metric, render, single


def test_every_source_is_rendered() -> None:
    counters = Counters()
    counters.requests["mcp"] += 2
    counters.refused[404] += 1
    servers = Metric("mcpd_server_up", "Whether a server is READY", "gauge", ("server",), {("a",): 1, ('q"\n',): 0})
    text = render([counters.metrics, lambda: [servers, single("mcpd_x", "x", "gauge", 1.5)]]).decode()
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }

    assert samples["mcpd_http_requests_total", "mcp"] == 2
    assert samples["mcpd_http_refused_total", "404"] == 1
    assert samples["mcpd_server_up", "a"] == 1
    assert samples["mcpd_server_up", 'q"\n'] == 0
    assert samples["mcpd_x",] == 1.5
    assert samples["mcpd_http_errors_total",] == 0


def test_nothing_heavy_is_imported_before_the_first_scrape() -> None:
    program = (
        "import sys, mcpd.frontdoor.app; sys.exit(any(n.startswith(('prometheus', 'starlette')) for n in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)

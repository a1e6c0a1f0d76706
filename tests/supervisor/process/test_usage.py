"""Sums over processes."""

from __future__ import annotations

import os

from mcpd.process import tree
from mcpd.process.usage import measure


def test_this_process_is_measured() -> None:
    own = tree.look_up(os.getpid())
    assert own is not None

    usage = measure([own], pss=True)
    assert usage.processes == 1
    assert usage.pss is not None
    assert 1 << 20 < usage.pss <= usage.rss * 1.1
    assert usage.cpu_seconds > 0


def test_wrappers_count_for_their_time_only_and_the_dead_not_at_all() -> None:
    page, tick = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
    live = tree.Process(2, 1, 1, "S", 10, cpu_ticks=tick, rss_pages=100)
    dead = tree.Process(3, 1, 1, "Z", 10, cpu_ticks=tick, rss_pages=0)
    wrapper = tree.Process(1, 0, 1, "S", 10, cpu_ticks=2 * tick, rss_pages=50)

    usage = measure([live, dead], waited_for=[wrapper])
    assert (usage.rss, usage.pss, usage.cpu_seconds, usage.processes) == (100 * page, None, 3.0, 1)


def test_process_that_is_gone_has_no_pss() -> None:
    gone = tree.Process(2**22 + 1, 1, 1, "S", 10, cpu_ticks=0, rss_pages=1)

    assert measure([gone], pss=True).pss == 0

"""Which of many tools a query finds first, and how long that takes."""

from __future__ import annotations

import time

import pytest

from mcpd.routing.ranking import Ranking, words

OBJECTS = ("repository", "issue", "pull_request", "email", "query", "file", "meeting_room", "message", "address")
VERBS = {
    "list": "List all {} that there are, page by page.",
    "get": "Get the details of one {} by its id.",
    "create": "Create a new {} in the account.",
    "delete": "Delete a {} permanently.",
}
TOOLS = [
    (f"{verb}_{one}", about.format(one.replace("_", " ")), "id limit")
    for one in OBJECTS
    for verb, about in VERBS.items()
] + [
    ("convertCurrency", "Convert an amount of money at the current exchange rate.", "amount from to"),
    ("take_screenshot", "An image of the page.", ""),
    ("clock", "What time it is now.", "timezone"),
    ("\u8bfb\u53d6\u6587\u4ef6", "\u8fd4\u56de\u6587\u4ef6\u5185\u5bb9", "path"),
]


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("list repositories", "list_repository"),
        ("all the repositories", "list_repository"),
        ("queries", "list_query"),
        ("addresses", "list_address"),
        ("delete an email", "delete_email"),
        ("create a pull request", "create_pull_request"),
        ("createIssue", "create_issue"),
        ("what time is it", "clock"),
        ("take a screenshot of the page", "take_screenshot"),
        ("exchange rates", "convertCurrency"),
        ("timezones", "clock"),
        ("repo", "list_repository"),
        ("\u6587\u4ef6", "\u8bfb\u53d6\u6587\u4ef6"),
    ],
)
def test_the_best_match_is_the_first(query: str, first: str) -> None:
    found = Ranking(TOOLS, (4.0, 1.0, 0.5)).best(query, 5)
    assert TOOLS[found[0]][0] == first


def test_words_that_are_everywhere_find_something_only_if_there_are_no_others() -> None:
    ranking = Ranking([("a", "the a", ""), ("b", "b", "")], (4.0, 1.0, 0.5))
    assert ranking.best("the", 5) == [0]
    assert ranking.best("the zebra", 5) == []


def test_a_query_without_words_gives_the_first_ones() -> None:
    assert Ranking(TOOLS, (4.0, 1.0, 0.5)).best(" ?!", 3) == [0, 1, 2]
    assert Ranking([], (1.0,)).best("", 3) == []


def test_names_fall_into_words() -> None:
    assert words("gh__listPullRequests_all-x") == ["gh", "list", "pull", "request", "all", "x"]
    assert words("files classes status this boxes") == ["file", "class", "status", "this", "box"]


def test_a_thousand_tools_are_searched_in_no_time() -> None:
    """Searches run between the messages of all other clients."""
    ranking = Ranking([(f"{name}_{n}", about, more) for n in range(25) for name, about, more in TOOLS], (4.0, 1.0, 0.5))
    began = time.process_time()
    for _ in range(10):
        ranking.best("delete one of the email messages of the account", 10)
    assert (time.process_time() - began) / 10 < 0.05

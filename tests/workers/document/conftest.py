"""Each statement of the document is tested over stdio and SSE, with a client of each era."""

import pytest

from support.document import WAYS, Way


@pytest.fixture(params=WAYS, ids=lambda way: f"{way.transport}-{way.mode}")
def way(request: pytest.FixtureRequest) -> Way:
    """A transport and an era."""
    found: Way = request.param
    return found

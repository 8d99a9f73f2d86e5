"""Queries of the lists of files and batches."""

import pytest

from serve.gateway.offline_answers import Page, read_page
from serve.requests.refusal import RequestRefused


def page(query: str) -> Page:
    scope = {"type": "http", "query_string": query.encode()}
    return read_page(scope, default=20, most=100, parameters=("limit", "after", "order"))


def test_a_page_is_as_long_as_the_query_says_within_the_most() -> None:
    limits = [page(query).limit for query in ("", "limit=1", "limit=007", "limit=100")]
    assert limits == [20, 1, 7, 100]


@pytest.mark.parametrize(
    "limit",
    ["", "0", "101", "-1", "1.0", "٣", "1_0", "00000001099999999", "000000001" + "0" * 5000],
)
def test_a_limit_that_is_no_number_in_range_is_refused(limit: str) -> None:
    with pytest.raises(RequestRefused, match="'limit' must be 1 to 100") as caught:
        page(f"limit={limit}")
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("query", ["order=up", "made_up=1"])
def test_what_a_list_does_not_offer_is_refused(query: str) -> None:
    with pytest.raises(RequestRefused):
        page(query)

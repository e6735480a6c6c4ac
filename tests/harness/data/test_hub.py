"""How the hub is asked: how long it wants to be left alone, and what of a failure is this machine's."""

import httpx2
import pytest
from huggingface_hub.errors import HfHubHTTPError

from mmeb_harness import DataError
from mmeb_harness.data import hub


def refusal(headers: dict[str, str]) -> HfHubHTTPError:
    request = httpx2.Request("GET", "http://127.0.0.1/")
    return HfHubHTTPError("too many requests", response=httpx2.Response(429, headers=headers, request=request))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"ratelimit": '"resolvers";r=0;t=20'}, 21),
        ({"ratelimit": '"resolvers";r=0;t=900'}, hub.LONGEST_PAUSE_SECONDS + 1),
        ({"ratelimit": '"resolvers";r=7;t=20'}, 0),
        ({"Retry-After": "5"}, 5),
        ({}, 0),
    ],
)
def test_a_hub_that_limits_requests_says_how_long_to_wait(headers: dict[str, str], seconds: float) -> None:
    assert hub._asked_pause(refusal(headers)) == seconds


def test_a_full_disk_while_a_list_is_asked_for_is_a_line() -> None:
    def ask() -> None:
        raise PermissionError(13, "Permission denied", "/tmp/x")

    with pytest.raises(DataError, match=r"owner/name: .*Permission denied"):
        hub._patiently("owner/name", None, ask, lambda seconds: None)

"""Bounded retries for talking to the Hub: what passes by itself is tried again, the rest is explained."""

from __future__ import annotations

import json
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from huggingface_hub import get_token
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from synthaug.core.errors import FailedError, InputError

__all__ = ["find_status", "one_line", "retry"]

T = TypeVar("T")

ATTEMPTS = 6
FIRST_WAIT = 1.0
"""Seconds before the second try; doubles from try to try, each with up to half of it as jitter."""
LONGEST_WAIT = 600.0
"""A server that asks for a longer wait than this many seconds is not waited for."""
PASSING = frozenset({408, 409, 412, 425, 429, 500, 502, 503, 504})

_HTTP_ERROR = HfHubHTTPError.__bases__[0]  # httpx's or httpx2's, whichever this huggingface_hub is built on
_LASTING = ("LocalProtocolError", "UnsupportedProtocol", "ProxyError", "TooManyRedirects")


def retry(action: Callable[[], T], *, doing: str, remedy: str) -> T:
    """Return what `action` returns, after as many tries as it takes, six at most.

    Args:
        action: Talks to the Hub; may be called again from the start.
        doing: What it does, for messages: "pushing to user/name".
        remedy: What to do when it fails for good, for messages.

    Raises:
        InputError: If the Hub wants another token (401, 403), or is not to be asked at all (offline).
        FailedError: If it still fails after the last try, or fails in a way that does not pass.
    """
    for attempt in range(1, ATTEMPTS):
        try:
            return action()
        except (InputError, FailedError):
            raise
        except Exception as error:
            _raise_if_lasting(error, doing, remedy)
            wait = _choose_wait(error, attempt)
            if wait > LONGEST_WAIT:
                raise FailedError(f"{doing} has to wait {wait:.0f} s: {one_line(error)}; {remedy}") from error
            told = f"{doing}: {one_line(error)}; trying again in {wait:.0f} s ({attempt} of {ATTEMPTS - 1})"
            print(told, file=sys.stderr)
        time.sleep(wait)
    try:
        return action()
    except (InputError, FailedError):
        raise
    except Exception as error:
        _raise_if_lasting(error, doing, remedy)
        raise FailedError(f"{doing} failed after {ATTEMPTS} tries: {one_line(error)}; {remedy}") from error


def find_status(error: BaseException) -> int | None:
    """Return the HTTP status behind an error or behind what caused it; None if there was no answer."""
    responses = (getattr(link, "response", None) for link in _chain(error))
    return next((int(response.status_code) for response in responses if response is not None), None)


def one_line(error: BaseException) -> str:
    """Return what an error says on one line of at most 200 characters, without the token."""
    told = next((said for link in _chain(error) if (said := getattr(link, "server_message", None))), None)
    status = find_status(error)
    text = f"{status or ''} {told}" if told else str(error) or type(error).__name__
    token = get_token()
    return " ".join((text.replace(token, "***") if token else text).split())[:200]


def _raise_if_lasting(error: Exception, doing: str, remedy: str) -> None:
    """Raise unless the same request may well succeed a little later."""
    if any(isinstance(link, OfflineModeIsEnabled) for link in _chain(error)):
        raise InputError(f"{doing} needs the network, but HF_HUB_OFFLINE is set; unset it") from error
    status = find_status(error)
    if status in (401, 403):
        login = "check the name and log in by `hf auth login` with a token that may do it"
        raise InputError(f"{doing} was refused ({status}); {login}") from error
    if status in PASSING or (status is None and _is_dropped(error)):
        return
    if status is None and not isinstance(error, (_HTTP_ERROR, LocalEntryNotFoundError, ValueError)):
        raise error  # neither the Hub nor its client: a full disk, say
    raise FailedError(f"{doing} failed: {one_line(error)}; {remedy}") from error


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what caused it: the clients wrap answers in errors of their own."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _is_dropped(error: Exception) -> bool:
    """Return whether the connection failed, or a gateway answered in place of the Hub."""
    links = list(_chain(error))
    if any(type(link).__name__ in _LASTING for link in links):
        return False
    passing = (_HTTP_ERROR, ConnectionError, TimeoutError, json.JSONDecodeError)
    return any(isinstance(link, passing) for link in links)


def _choose_wait(error: Exception, attempt: int) -> float:
    """Return the seconds to wait: what the server asked for, or twice as long as before, with jitter."""
    asked = 0.0
    for link in _chain(error):
        headers = getattr(getattr(link, "response", None), "headers", {})
        after = re.fullmatch(r"\s*(\d+)\s*", headers.get("Retry-After", ""))
        after = after or re.search(r"\bt=(\d+)", headers.get("RateLimit", ""))
        asked = max(asked, float(after[1]) if after else 0.0)
    return max(asked, FIRST_WAIT * float(2 ** (attempt - 1)) * random.uniform(0.5, 1.0))

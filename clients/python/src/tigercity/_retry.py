"""When a failed request is sent again, and after how long. Does not send or sleep."""

from __future__ import annotations

import random
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, Optional

import httpx

from ._calls import Call
from ._errors import APIConnectionError, APIStatusError, APITimeoutError, TigerCityError, UnexpectedAnswerError

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 8.0
LONGEST_RETRY_AFTER_S = 60.0
"""A server that asks for more is not waited for: the error says how long."""

# Waiting mends none of these.
_LASTING = {"not_downloaded", "load_failed", "out_of_memory", "disk_full"}


def pause_before_retry(error: TigerCityError, call: Call[Any], attempt: int, max_retries: int) -> Optional[float]:
    """Seconds to wait before trying again, or None to give up. `attempt` counts from 0."""
    if attempt >= max_retries or not _worth_retrying(error, call):
        return None
    asked = error.retry_after if isinstance(error, APIStatusError) else None
    if asked is not None:
        # Up to a quarter longer, so that many clients do not come back at the same moment.
        return None if asked > LONGEST_RETRY_AFTER_S else asked * (1 + random.random() / 4)
    return float(min(FIRST_PAUSE_S * 2**attempt, LONGEST_PAUSE_S)) * (1 - random.random() / 4)


def _worth_retrying(error: TigerCityError, call: Call[Any]) -> bool:
    if call.form is not None and not call.form.unused:
        return False
    if isinstance(error, APIConnectionError):
        return error.unsent or call.repeatable
    if not isinstance(error, APIStatusError) or error.code in _LASTING:
        return False
    # An earlier try of the same training still runs; when it has ended the key gives its answer.
    if error.code == "idempotency_in_flight":
        return True
    # Refused before any work.
    if error.status in (408, 429) or (error.status == 503 and error.retry_after is not None):
        return True
    return error.status >= 500 and call.repeatable


def undecodable(error: httpx.DecodingError) -> UnexpectedAnswerError:
    """The error of an answer whose compression cannot be undone."""
    return UnexpectedAnswerError(f"the answer cannot be decompressed ({error}); is there a proxy in between?")


def connection_error(error: httpx.RequestError, url: str) -> TigerCityError:
    """The error of a request without an answer."""
    if isinstance(error, httpx.DecodingError):
        return undecodable(error)
    reason = str(error) or type(error).__name__
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, (httpx.ConnectTimeout, httpx.PoolTimeout)):
        failed: APIConnectionError = APITimeoutError(
            f"no answer from {url} in time ({type(error).__name__}); raise `timeout` if it needs longer"
        )
    elif isinstance(error, httpx.TimeoutException):
        failed = APITimeoutError(f"no connection to {url} in time ({type(error).__name__}); does `tiger serve` run there?")
    else:
        failed = APIConnectionError(f"cannot reach {url}: {reason}; does `tiger serve` run there?")
    failed.unsent = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout))
    failed.__cause__ = error
    return failed


def retry_after_s(header: Optional[str]) -> Optional[float]:
    """Seconds of a `Retry-After` header, which holds seconds or a date."""
    if header is None:
        return None
    if header.strip().replace(".", "", 1).isdigit():
        return float(header)
    try:
        when = parsedate_to_datetime(header)
    except (TypeError, ValueError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=timezone.utc)
    return max(0.0, (when - datetime.now(timezone.utc)).total_seconds())

"""`TigerCity` and `AsyncTigerCity`: address, key, timeouts and tries. Does not know what a call means; `_calls` does."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, Optional, TypeVar, Union, overload

import anyio
import httpx

from . import _calls, _retry, _stream
from . import _types as t
from ._calls import Call
from ._errors import TigerCityError, answer_error
from ._form import Form
from ._models import AsyncModels, Models
from ._version import VERSION

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

T = TypeVar("T")
Http = TypeVar("Http", httpx.Client, httpx.AsyncClient)
Timeout = Union[float, httpx.Timeout, None]

DEFAULT_BASE_URL = "http://localhost:45678"
DEFAULT_TIMEOUT = httpx.Timeout(600.0, connect=10.0)
"""Ten minutes without a byte: a large model on a CPU may take long for a whole answer. A stream sends bytes as it goes."""
DEFAULT_MAX_RETRIES = 2


class _Unset:
    """Tells "not given" from None, which is a timeout too: none at all."""


_UNSET = _Unset()


class _Base(Generic[Http]):
    def __init__(self, http: Http, owned: bool, api_key: Optional[str], base_url: Optional[str]) -> None:
        self._http: Http = http
        self._owned = owned
        self.api_key = _checked_key(api_key)
        self.base_url = _checked_url(base_url)
        self.timeout: Timeout = DEFAULT_TIMEOUT
        self.max_retries = DEFAULT_MAX_RETRIES

    def _configure(self, timeout: Union[Timeout, _Unset], max_retries: Optional[int]) -> None:
        if not isinstance(timeout, _Unset):
            self.timeout = timeout
        if max_retries is not None:
            self.max_retries = _checked_retries(max_retries)

    def _request(self, call: Call[Any]) -> httpx.Request:
        headers = {"Authorization": f"Bearer {self.api_key}", "User-Agent": f"tigercity-python/{VERSION}", **call.headers}
        return self._http.build_request(
            call.method,
            self.base_url + call.path,
            params=call.query or None,
            json=call.body,
            content=None if call.form is None else self._content(call.form),
            headers=headers,
            timeout=self.timeout,
        )

    @staticmethod
    def _content(form: Form) -> Union[Iterator[bytes], AsyncIterator[bytes]]:
        raise NotImplementedError

    def _failed(self, response: httpx.Response) -> TigerCityError:
        request_id = response.headers.get("x-request-id")
        retry_after = _retry.retry_after_s(response.headers.get("retry-after"))
        return answer_error(response.status_code, response.content, request_id, retry_after)

    def _pause(self, error: TigerCityError, call: Call[Any], attempt: int) -> float:
        """Seconds until the next try; raises `error` where there is none."""
        pause = _retry.pause_before_retry(error, call, attempt, self.max_retries)
        if pause is None:
            raise error
        return pause


class TigerCity(_Base[httpx.Client]):
    """Calls a TigerCity server.

    `api_key` defaults to the variable TIGER_API_KEY, `base_url` to TIGER_BASE_URL, else http://localhost:45678. `max_retries` is of failed
    connections, 429 and 5xx. `http_client` brings one's own proxy, certificates or transport, and stays one's own to close.
    """

    def __init__(
        self,
        *,
        api_key: Optional[str] = None,
        base_url: Optional[str] = None,
        timeout: Union[Timeout, _Unset] = _UNSET,
        max_retries: Optional[int] = None,
        http_client: Optional[httpx.Client] = None,
    ) -> None:
        super().__init__(http_client or httpx.Client(), http_client is None, api_key, base_url)
        self._configure(timeout, max_retries)
        self.models = Models(self)

    def with_options(
        self,
        *,
        api_key: Optional[str] = None,
        base_url: Optional[str] = None,
        timeout: Union[Timeout, _Unset] = _UNSET,
        max_retries: Optional[int] = None,
    ) -> TigerCity:
        """A client with other options, on the same connections."""
        other = TigerCity(api_key=api_key or self.api_key, base_url=base_url or self.base_url, http_client=self._http)
        other._configure(self.timeout if isinstance(timeout, _Unset) else timeout, self.max_retries if max_retries is None else max_retries)
        return other

    @overload
    def generate(self, *, stream: Literal[True], **params: Unpack[t.GenerateParams]) -> _stream.GenerateStream: ...
    @overload
    def generate(self, *, stream: Literal[False] = False, **params: Unpack[t.GenerateParams]) -> t.GenerateResponse: ...
    def generate(self, *, stream: bool = False, **params: Unpack[t.GenerateParams]) -> Union[t.GenerateResponse, _stream.GenerateStream]:
        """Generates one or (`n`) several responses to a conversation."""
        return self.generate_stream(**params) if stream else self._send(_calls.generate(params, False))

    def generate_stream(self, **params: Unpack[t.GenerateParams]) -> _stream.GenerateStream:
        """The response while it is made."""
        return _stream.GenerateStream(_stream.GENERATE, self._open(_calls.generate(params, True)))

    @overload
    def train(
        self, *, stream: Literal[True], idempotency_key: Optional[str] = None, **params: Unpack[t.TrainParams]
    ) -> _stream.Stream[t.TrainChunk, t.TrainResponse]: ...
    @overload
    def train(
        self, *, stream: Literal[False] = False, idempotency_key: Optional[str] = None, **params: Unpack[t.TrainParams]
    ) -> t.TrainResponse: ...
    def train(
        self, *, stream: bool = False, idempotency_key: Optional[str] = None, **params: Unpack[t.TrainParams]
    ) -> Union[t.TrainResponse, _stream.Stream[t.TrainChunk, t.TrainResponse]]:
        """Trains one's own model on responses with rewards. Tries of one call train once, and so do calls with one `idempotency_key`."""
        if stream:
            return self.train_stream(idempotency_key=idempotency_key, **params)
        return self._send(_calls.train(params, idempotency_key, False))

    def train_stream(
        self, *, idempotency_key: Optional[str] = None, **params: Unpack[t.TrainParams]
    ) -> _stream.Stream[t.TrainChunk, t.TrainResponse]:
        """The same with progress."""
        return _stream.Stream(_stream.TRAIN, self._open(_calls.train(params, idempotency_key, True)))

    def close(self) -> None:
        """Closes the connections, unless they are of an `http_client` or of the client that `with_options` was called on."""
        if self._owned:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self.close()

    @staticmethod
    def _content(form: Form) -> Iterator[bytes]:
        return form.pieces()

    def _send(self, call: Call[T]) -> T:
        return call.read(self._tried(call, stream=False).content)

    def _open(self, call: Call[Any]) -> httpx.Response:
        return self._tried(call, stream=True)

    def _save(self, call: Call[bytes], path: Path) -> None:
        """The answer's body as a new file, piece by piece."""
        response = self._open(call)
        try:
            with path.open("xb") as file:
                for piece in response.iter_bytes():
                    file.write(piece)
        except httpx.RequestError as error:
            raise _stream.interrupted(error) from error
        finally:
            response.close()

    def _tried(self, call: Call[Any], stream: bool) -> httpx.Response:
        attempt = 0
        while isinstance(outcome := self._attempt(call, stream), TigerCityError):
            time.sleep(self._pause(outcome, call, attempt))
            attempt += 1
        return outcome

    def _attempt(self, call: Call[Any], stream: bool) -> Union[httpx.Response, TigerCityError]:
        try:
            response = self._http.send(self._request(call), stream=True)
            if stream and response.is_success:
                return response
            response.read()
        except httpx.RequestError as error:
            return _retry.connection_error(error, self.base_url)
        return response if response.is_success else self._failed(response)


class AsyncTigerCity(_Base[httpx.AsyncClient]):
    """`TigerCity` for asyncio (and trio): the same names, awaited."""

    def __init__(
        self,
        *,
        api_key: Optional[str] = None,
        base_url: Optional[str] = None,
        timeout: Union[Timeout, _Unset] = _UNSET,
        max_retries: Optional[int] = None,
        http_client: Optional[httpx.AsyncClient] = None,
    ) -> None:
        super().__init__(http_client or httpx.AsyncClient(), http_client is None, api_key, base_url)
        self._configure(timeout, max_retries)
        self.models = AsyncModels(self)

    def with_options(
        self,
        *,
        api_key: Optional[str] = None,
        base_url: Optional[str] = None,
        timeout: Union[Timeout, _Unset] = _UNSET,
        max_retries: Optional[int] = None,
    ) -> AsyncTigerCity:
        """A client with other options, on the same connections."""
        other = AsyncTigerCity(api_key=api_key or self.api_key, base_url=base_url or self.base_url, http_client=self._http)
        other._configure(self.timeout if isinstance(timeout, _Unset) else timeout, self.max_retries if max_retries is None else max_retries)
        return other

    @overload
    async def generate(self, *, stream: Literal[True], **params: Unpack[t.GenerateParams]) -> _stream.AsyncGenerateStream: ...
    @overload
    async def generate(self, *, stream: Literal[False] = False, **params: Unpack[t.GenerateParams]) -> t.GenerateResponse: ...
    async def generate(
        self, *, stream: bool = False, **params: Unpack[t.GenerateParams]
    ) -> Union[t.GenerateResponse, _stream.AsyncGenerateStream]:
        """Generates one or (`n`) several responses to a conversation."""
        if stream:
            return await self.generate_stream(**params)
        return await self._send(_calls.generate(params, False))

    async def generate_stream(self, **params: Unpack[t.GenerateParams]) -> _stream.AsyncGenerateStream:
        """The response while it is made."""
        return _stream.AsyncGenerateStream(_stream.GENERATE, await self._open(_calls.generate(params, True)))

    @overload
    async def train(
        self, *, stream: Literal[True], idempotency_key: Optional[str] = None, **params: Unpack[t.TrainParams]
    ) -> _stream.AsyncStream[t.TrainChunk, t.TrainResponse]: ...
    @overload
    async def train(
        self, *, stream: Literal[False] = False, idempotency_key: Optional[str] = None, **params: Unpack[t.TrainParams]
    ) -> t.TrainResponse: ...
    async def train(
        self, *, stream: bool = False, idempotency_key: Optional[str] = None, **params: Unpack[t.TrainParams]
    ) -> Union[t.TrainResponse, _stream.AsyncStream[t.TrainChunk, t.TrainResponse]]:
        """Trains one's own model on responses with rewards. Tries of one call train once, and so do calls with one `idempotency_key`."""
        if stream:
            return await self.train_stream(idempotency_key=idempotency_key, **params)
        return await self._send(_calls.train(params, idempotency_key, False))

    async def train_stream(
        self, *, idempotency_key: Optional[str] = None, **params: Unpack[t.TrainParams]
    ) -> _stream.AsyncStream[t.TrainChunk, t.TrainResponse]:
        """The same with progress."""
        return _stream.AsyncStream(_stream.TRAIN, await self._open(_calls.train(params, idempotency_key, True)))

    async def close(self) -> None:
        """Closes the connections, unless they are of an `http_client` or of the client that `with_options` was called on."""
        if self._owned:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        await self.close()

    @staticmethod
    def _content(form: Form) -> AsyncIterator[bytes]:
        return form.async_pieces()

    async def _send(self, call: Call[T]) -> T:
        return call.read((await self._tried(call, stream=False)).content)

    async def _open(self, call: Call[Any]) -> httpx.Response:
        return await self._tried(call, stream=True)

    async def _save(self, call: Call[bytes], path: Path) -> None:
        """The answer's body as a new file, piece by piece."""
        response = await self._open(call)
        try:
            async with await anyio.open_file(path, "xb") as file:
                async for piece in response.aiter_bytes():
                    await file.write(piece)
        except httpx.RequestError as error:
            raise _stream.interrupted(error) from error
        finally:
            await response.aclose()

    async def _tried(self, call: Call[Any], stream: bool) -> httpx.Response:
        attempt = 0
        while isinstance(outcome := await self._attempt(call, stream), TigerCityError):
            await anyio.sleep(self._pause(outcome, call, attempt))
            attempt += 1
        return outcome

    async def _attempt(self, call: Call[Any], stream: bool) -> Union[httpx.Response, TigerCityError]:
        try:
            response = await self._http.send(self._request(call), stream=True)
            if stream and response.is_success:
                return response
            await response.aread()
        except httpx.RequestError as error:
            return _retry.connection_error(error, self.base_url)
        return response if response.is_success else self._failed(response)


def _checked_key(given: Optional[str]) -> str:
    key = os.environ.get("TIGER_API_KEY") if given is None else given
    if not key:
        raise TigerCityError("no API key: set TIGER_API_KEY (`tiger keys create NAME` makes one) or pass `api_key`")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise TigerCityError("`api_key` has characters that no key has; was more copied than the key?")
    return key


def _checked_url(given: Optional[str]) -> str:
    text = given or os.environ.get("TIGER_BASE_URL") or DEFAULT_BASE_URL
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        raise TigerCityError(f"`base_url` must begin with http:// or https:// and name a host, as in {DEFAULT_BASE_URL}; it is {text!r}")
    return text.rstrip("/").removesuffix("/v1").rstrip("/")


def _checked_retries(given: int) -> int:
    if given < 0:
        raise TigerCityError(f"`max_retries` must be 0 or more; it is {given}")
    return given

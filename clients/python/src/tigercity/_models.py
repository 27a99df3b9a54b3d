"""`client.models`: one's own models, their revisions and what became of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Optional, Union, overload

from . import _calls, _stream
from . import _types as t
from ._form import CONFIG_FILE, WEIGHTS_FILE, FileContent, Folder, adapter_form, new_adapter_folder

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._client import AsyncTigerCity, TigerCity


class Models:
    """Models of a `TigerCity` client."""

    def __init__(self, client: TigerCity) -> None:
        self._client = client

    def list(self) -> list[t.ModelInfo]:
        """Base models first, then one's own, newest first."""
        return self._client._send(_calls.list_models())

    def get(self, model: str) -> t.ModelInfo:
        """One, by id or name."""
        return self._client._send(_calls.get_model(model))

    @overload
    def create(self, *, stream: Literal[True], **params: Unpack[t.CreateModelParams]) -> _stream.Stream[t.CreateChunk, t.ModelInfo]: ...
    @overload
    def create(self, *, stream: Literal[False] = False, **params: Unpack[t.CreateModelParams]) -> t.ModelInfo: ...
    def create(
        self, *, stream: bool = False, **params: Unpack[t.CreateModelParams]
    ) -> Union[t.ModelInfo, _stream.Stream[t.CreateChunk, t.ModelInfo]]:
        """A private copy of `parent_model`."""
        return self.create_stream(**params) if stream else self._client._send(_calls.create_model(params, False))

    def create_stream(self, **params: Unpack[t.CreateModelParams]) -> _stream.Stream[t.CreateChunk, t.ModelInfo]:
        """The same with progress."""
        return _stream.Stream(_stream.CREATE, self._client._open(_calls.create_model(params, True)))

    def update(self, model: str, **params: Unpack[t.UpdateModelParams]) -> t.ModelInfo:
        """Changes the description or defaults of one's own model."""
        return self._client._send(_calls.update_model(model, params))

    def delete(self, model: str) -> t.DeleteModelResponse:
        """Deletes one's own model; copies made from it live on."""
        return self._client._send(_calls.delete_model(model))

    def revisions(self, model: str, *, limit: Optional[int] = None, before: Optional[int] = None) -> t.Revisions:
        """Newest first: all, or at most `limit`, or those before revision `before`. Fetches as many pages as it takes."""
        pages = _calls.Pages(model, limit, before)
        while (call := pages.next()) and pages.add(self._client._send(call)):
            pass
        return pages.found

    def rollback(self, model: str, revision: int) -> t.ModelInfo:
        """Makes the weights of `revision` the newest revision."""
        return self._client._send(_calls.rollback(model, revision))

    @overload
    def evaluate(
        self, model: str, *, stream: Literal[True], **params: Unpack[t.EvaluateParams]
    ) -> _stream.Stream[t.EvaluateChunk, t.EvaluateResponse]: ...
    @overload
    def evaluate(self, model: str, *, stream: Literal[False] = False, **params: Unpack[t.EvaluateParams]) -> t.EvaluateResponse: ...
    def evaluate(
        self, model: str, *, stream: bool = False, **params: Unpack[t.EvaluateParams]
    ) -> Union[t.EvaluateResponse, _stream.Stream[t.EvaluateChunk, t.EvaluateResponse]]:
        """A revision beside its parent, or beside another revision, on given prompts."""
        return self.evaluate_stream(model, **params) if stream else self._client._send(_calls.evaluate(model, params, False))

    def evaluate_stream(self, model: str, **params: Unpack[t.EvaluateParams]) -> _stream.Stream[t.EvaluateChunk, t.EvaluateResponse]:
        """The same with progress."""
        return _stream.Stream(_stream.EVALUATE, self._client._open(_calls.evaluate(model, params, True)))

    @overload
    def import_adapter(self, folder: Folder, **params: Unpack[t.ImportAdapterParams]) -> t.ModelInfo: ...
    @overload
    def import_adapter(
        self, *, adapter_config: FileContent, adapter_model: FileContent, **params: Unpack[t.ImportAdapterParams]
    ) -> t.ModelInfo: ...
    def import_adapter(
        self,
        folder: Optional[Folder] = None,
        *,
        adapter_config: Optional[FileContent] = None,
        adapter_model: Optional[FileContent] = None,
        **params: Unpack[t.ImportAdapterParams],
    ) -> t.ModelInfo:
        """A private model from a LoRA adapter as PEFT writes it: its folder, or its two files. Files are read while they are sent.

        Raises `UnprocessableEntityError` for adapters that the base cannot take, with the file and the field; `OSError` for files that
        cannot be read.
        """
        form = adapter_form(folder, adapter_config, adapter_model, params)
        return self._client._send(_calls.import_adapter(form))

    def export_adapter(self, model: str, folder: Folder, *, revision: Optional[int] = None) -> None:
        """Writes both of the adapter's files into `folder`, as PEFT reads them; of the newest revision if none is named.

        Raises `FileExistsError` where they are there already. Both files come, or none.
        """
        with new_adapter_folder(folder) as place:
            for file in (CONFIG_FILE, WEIGHTS_FILE):
                self._client._save(_calls.adapter(model, file, revision), place / file)

    def adapter(self, model: str, file: t.AdapterFile = "adapter_model.safetensors", *, revision: Optional[int] = None) -> bytes:
        """One of the adapter's two files as PEFT reads them; of the newest revision if none is named."""
        return self._client._send(_calls.adapter(model, file, revision))


class AsyncModels:
    """Models of an `AsyncTigerCity` client."""

    def __init__(self, client: AsyncTigerCity) -> None:
        self._client = client

    async def list(self) -> list[t.ModelInfo]:
        """Base models first, then one's own, newest first."""
        return await self._client._send(_calls.list_models())

    async def get(self, model: str) -> t.ModelInfo:
        """One, by id or name."""
        return await self._client._send(_calls.get_model(model))

    @overload
    async def create(
        self, *, stream: Literal[True], **params: Unpack[t.CreateModelParams]
    ) -> _stream.AsyncStream[t.CreateChunk, t.ModelInfo]: ...
    @overload
    async def create(self, *, stream: Literal[False] = False, **params: Unpack[t.CreateModelParams]) -> t.ModelInfo: ...
    async def create(
        self, *, stream: bool = False, **params: Unpack[t.CreateModelParams]
    ) -> Union[t.ModelInfo, _stream.AsyncStream[t.CreateChunk, t.ModelInfo]]:
        """A private copy of `parent_model`."""
        if stream:
            return await self.create_stream(**params)
        return await self._client._send(_calls.create_model(params, False))

    async def create_stream(self, **params: Unpack[t.CreateModelParams]) -> _stream.AsyncStream[t.CreateChunk, t.ModelInfo]:
        """The same with progress."""
        return _stream.AsyncStream(_stream.CREATE, await self._client._open(_calls.create_model(params, True)))

    async def update(self, model: str, **params: Unpack[t.UpdateModelParams]) -> t.ModelInfo:
        """Changes the description or defaults of one's own model."""
        return await self._client._send(_calls.update_model(model, params))

    async def delete(self, model: str) -> t.DeleteModelResponse:
        """Deletes one's own model; copies made from it live on."""
        return await self._client._send(_calls.delete_model(model))

    async def revisions(self, model: str, *, limit: Optional[int] = None, before: Optional[int] = None) -> t.Revisions:
        """Newest first: all, or at most `limit`, or those before revision `before`. Fetches as many pages as it takes."""
        pages = _calls.Pages(model, limit, before)
        while (call := pages.next()) and pages.add(await self._client._send(call)):
            pass
        return pages.found

    async def rollback(self, model: str, revision: int) -> t.ModelInfo:
        """Makes the weights of `revision` the newest revision."""
        return await self._client._send(_calls.rollback(model, revision))

    @overload
    async def evaluate(
        self, model: str, *, stream: Literal[True], **params: Unpack[t.EvaluateParams]
    ) -> _stream.AsyncStream[t.EvaluateChunk, t.EvaluateResponse]: ...
    @overload
    async def evaluate(self, model: str, *, stream: Literal[False] = False, **params: Unpack[t.EvaluateParams]) -> t.EvaluateResponse: ...
    async def evaluate(
        self, model: str, *, stream: bool = False, **params: Unpack[t.EvaluateParams]
    ) -> Union[t.EvaluateResponse, _stream.AsyncStream[t.EvaluateChunk, t.EvaluateResponse]]:
        """A revision beside its parent, or beside another revision, on given prompts."""
        if stream:
            return await self.evaluate_stream(model, **params)
        return await self._client._send(_calls.evaluate(model, params, False))

    async def evaluate_stream(
        self, model: str, **params: Unpack[t.EvaluateParams]
    ) -> _stream.AsyncStream[t.EvaluateChunk, t.EvaluateResponse]:
        """The same with progress."""
        return _stream.AsyncStream(_stream.EVALUATE, await self._client._open(_calls.evaluate(model, params, True)))

    @overload
    async def import_adapter(self, folder: Folder, **params: Unpack[t.ImportAdapterParams]) -> t.ModelInfo: ...
    @overload
    async def import_adapter(
        self, *, adapter_config: FileContent, adapter_model: FileContent, **params: Unpack[t.ImportAdapterParams]
    ) -> t.ModelInfo: ...
    async def import_adapter(
        self,
        folder: Optional[Folder] = None,
        *,
        adapter_config: Optional[FileContent] = None,
        adapter_model: Optional[FileContent] = None,
        **params: Unpack[t.ImportAdapterParams],
    ) -> t.ModelInfo:
        """A private model from a LoRA adapter as PEFT writes it: its folder, or its two files. Files are read while they are sent.

        Raises `UnprocessableEntityError` for adapters that the base cannot take, with the file and the field; `OSError` for files that
        cannot be read.
        """
        form = adapter_form(folder, adapter_config, adapter_model, params)
        return await self._client._send(_calls.import_adapter(form))

    async def export_adapter(self, model: str, folder: Folder, *, revision: Optional[int] = None) -> None:
        """Writes both of the adapter's files into `folder`, as PEFT reads them; of the newest revision if none is named.

        Raises `FileExistsError` where they are there already. Both files come, or none.
        """
        with new_adapter_folder(folder) as place:
            for file in (CONFIG_FILE, WEIGHTS_FILE):
                await self._client._save(_calls.adapter(model, file, revision), place / file)

    async def adapter(self, model: str, file: t.AdapterFile = "adapter_model.safetensors", *, revision: Optional[int] = None) -> bytes:
        """One of the adapter's two files as PEFT reads them; of the newest revision if none is named."""
        return await self._client._send(_calls.adapter(model, file, revision))

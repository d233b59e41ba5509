"""Any server with OpenAI's `/v1/embeddings`: vLLM, TEI, NIM, Ollama, infinity, and those in front of TPUs.

The API: https://platform.openai.com/docs/api-reference/embeddings
Images go as Jina's API and SGLang take them, `{"image": ...}` in `input`: https://jina.ai/embeddings
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..errors import EmbeddingError, InputError
from ..ops.digest import digest16
from ..ops.http import Endpoint
from ..ops.texts import check_not_empty
from ..protocols import Embedder
from ..types import Media
from .remote import RemoteEmbedder, Role


class _Row(msgspec.Struct):
    embedding: list[float] | str
    index: int


class _Answer(msgspec.Struct):
    data: list[_Row]


class OpenAIEmbedder(RemoteEmbedder):
    """Embedder behind `url` + "/embeddings"; a MediaEmbedder where the server's model reads images.

    url         with the version, for example "http://127.0.0.1:8000/v1"
    model       the server's name for the model
    dimension   of the vectors; None asks the server
    shorten     send `dimension` along: models of the Matryoshka kind then give vectors of that size
    as_base64   ask for base64 instead of decimal numbers; a server may answer in either form
    extra       other fields of every request, like {"truncate": "END"}
    query_extra, document_extra
                those of requests for texts of that role, like {"input_type": "query"}
    model_id    None: made of `model`, the prefixes, the dimension if it is shortened, and the other fields

    The others are those of ops/http.py's Endpoint and of RemoteEmbedder.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        dimension: int | None = None,
        shorten: bool = False,
        as_base64: bool = True,
        extra: Mapping[str, Any] | None = None,
        query_extra: Mapping[str, Any] | None = None,
        document_extra: Mapping[str, Any] | None = None,
        model_id: str | None = None,
        batch: int = 32,
        query_prefix: str = "",
        document_prefix: str = "",
        check_seconds: float = 60.0,
        parallel: int = 16,
        fallback: Sequence[Embedder] = (),
        timeout: float = 30.0,
        key_env: str | None = None,
        key_file: str | None = None,
        ca_file: str | None = None,
        networks: Sequence[str] = (),
    ) -> None:
        check_not_empty(model, "model")
        if shorten and dimension is None:
            raise InputError("shorten needs the dimension to shorten to")
        self._endpoint = Endpoint(
            url, timeout=timeout, key_env=key_env, key_file=key_file, ca_file=ca_file, networks=networks
        )
        request: dict[str, Any] = {"model": model}
        if as_base64:
            request["encoding_format"] = "base64"
        if shorten:
            request["dimensions"] = dimension
        default_id = f"openai:{model}:{dimension}" if shorten else f"openai:{model}"
        fields = {"extra": extra, "query_extra": query_extra, "document_extra": document_extra}
        if any(fields.values()):
            default_id += f":{_digest(fields)}"
        self._tells_role = query_extra != document_extra
        self._requests: dict[Role, dict[str, Any]] = {
            "query": {**(extra or {}), **(query_extra or {}), **request},
            "document": {**(extra or {}), **(document_extra or {}), **request},
        }
        super().__init__(
            self._endpoint,
            model_id=model_id,
            default_id=default_id,
            dimension=dimension,
            batch=batch,
            query_prefix=query_prefix,
            document_prefix=document_prefix,
            check_seconds=check_seconds,
            parallel=parallel,
            fallback=fallback,
        )

    def embed_media(
        self, media: Sequence[Media], *, role: Role, timeout: float | None = None
    ) -> NDArray[np.float32]:
        """(n, dimension) float32 of images, which go as base64 or by their URI. Raises as `embed`."""

        def ask(some: list[Media], left: float | None) -> list[Any]:
            return self._ask_images(some, role, left)

        return self._of_media(media, ask, timeout)

    def _ask_images(self, media: list[Media], role: Role, timeout: float | None) -> list[Any]:
        shown = [
            {"image": one.uri if one.data is None else base64.b64encode(one.data).decode()} for one in media
        ]
        return self._answered(shown, role, timeout)

    def _ask(self, texts: list[str], timeout: float | None) -> list[Any]:
        return self._ask_as(texts, "document", timeout)

    def _ask_as(self, texts: list[str], role: Role, timeout: float | None) -> list[Any]:
        return self._answered(texts, role, timeout)

    def _answered(self, wanted: Sequence[Any], role: Role, timeout: float | None) -> list[Any]:
        request = {**self._requests[role], "input": wanted}
        data = self._endpoint.post("/embeddings", request, _Answer, timeout).data
        rows: list[Any] = [None] * len(data)
        for row in data:
            if not 0 <= row.index < len(rows) or rows[row.index] is not None:
                raise EmbeddingError(
                    f"{self.model_id!r}: {len(rows)} rows, but their indices are not 0 to {len(rows) - 1}"
                )
            rows[row.index] = self._numbers(row.embedding)
        return rows

    def _numbers(self, embedding: list[float] | str) -> Any:
        if isinstance(embedding, list):
            return embedding
        try:
            return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4")
        except (binascii.Error, ValueError) as error:
            raise EmbeddingError(f"{self.model_id!r}: a vector is not float32 numbers in base64") from error


def _digest(fields: Mapping[str, Any]) -> str:
    for name, given in fields.items():
        if given is not None and not isinstance(given, Mapping):
            raise InputError(f"{name} must be a dict, not {type(given).__name__}")
    try:
        return digest16(b"", msgspec.json.encode(fields, order="sorted"))[:4].hex()
    except (TypeError, ValueError) as error:
        raise InputError("extra, query_extra and document_extra must hold what JSON has") from error

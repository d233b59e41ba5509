"""Hugging Face's text-embeddings-inference over its own `/embed`.

The API: https://huggingface.github.io/text-embeddings-inference
"""

from __future__ import annotations

from collections.abc import Sequence

from ..ops.http import Endpoint
from ..protocols import Embedder
from .remote import RemoteEmbedder


class TEIEmbedder(RemoteEmbedder):
    """Embedder behind `url` + "/embed".

    model_id    names the weights that the server was started with; it is not asked for them
    truncate    cut texts that are too long for the model; else the server refuses them

    The others are those of ops/http.py's Endpoint and of RemoteEmbedder.
    """

    def __init__(
        self,
        url: str,
        model_id: str,
        *,
        dimension: int | None = None,
        truncate: bool = True,
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
        self._endpoint = Endpoint(
            url, timeout=timeout, key_env=key_env, key_file=key_file, ca_file=ca_file, networks=networks
        )
        self._truncate = bool(truncate)
        super().__init__(
            self._endpoint,
            model_id=model_id,
            dimension=dimension,
            batch=batch,
            query_prefix=query_prefix,
            document_prefix=document_prefix,
            check_seconds=check_seconds,
            parallel=parallel,
            fallback=fallback,
        )

    def _ask(self, texts: list[str], timeout: float | None) -> list[list[float]]:
        return self._endpoint.post(
            "/embed", {"inputs": texts, "truncate": self._truncate}, list[list[float]], timeout
        )

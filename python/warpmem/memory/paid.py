"""A language model whose calls somebody pays for."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..embed.texts import estimated_tokens
from ..protocols import LanguageModel
from ..types import Message, Owner
from .costs import CostLedger


class Paid:
    """Implements protocols.LanguageModel. lane, job: as which its calls are told to the ledger; tokens are
    estimated, of what it is asked and of its answer, and its seconds are those of the call."""

    def __init__(self, model: LanguageModel, costs: CostLedger, owner: Owner, lane: str, job: str) -> None:
        self._model = model
        self._costs = costs
        self._owner, self._lane, self._job = owner, lane, job
        self.model_id = model.model_id

    def complete(
        self, messages: Sequence[Message], *, schema: Mapping[str, Any] | None = None, max_tokens: int = 1024
    ) -> str:
        """As the model; also raises Overloaded where a budget forbids it."""
        self._costs.check((self._owner,), self._lane, self._job)
        texts = [message.content for message in messages]
        began = time.perf_counter()
        try:
            answer = self._model.complete(messages, schema=schema, max_tokens=max_tokens)
            texts.append(answer)
            return answer
        finally:
            self._costs.spend(
                (self._owner, self._lane, self._job, self.model_id),
                tokens=sum(estimated_tokens(texts)),
                seconds=time.perf_counter() - began,
                size=sum(len(text.encode(errors="surrogatepass")) for text in texts),
                calls=1,
            )

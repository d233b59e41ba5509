"""A model for MLServer: texts to vectors by counting letters."""

from __future__ import annotations

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

LETTERS = "abcdefghijklmnop"


class Letters(MLModel):
    """One BYTES tensor of texts in, an FP32 tensor `embedding` out."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        texts = StringCodec.decode_input(payload.inputs[0])
        rows = np.array([[1 + text.count(letter) for letter in LETTERS] for text in texts], np.float32)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("embedding", rows)])

"""Token counters, and fakes of the language model and the reranker."""

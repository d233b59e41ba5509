"""Embedders (protocols.Embedder) and the checks on vectors that come from outside."""

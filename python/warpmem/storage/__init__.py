"""The durable log: engine, committer, formats."""

"""Rules about memories: what may be stored, what matches, what goes into a prompt."""

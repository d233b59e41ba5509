"""Upkeep of what is remembered: jobs that go through the owners, a piece at a time, and can stop anywhere."""

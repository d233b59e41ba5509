"""From what callers hand over to items ready to be stored."""

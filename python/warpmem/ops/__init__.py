"""Small shared services: time and identifiers."""

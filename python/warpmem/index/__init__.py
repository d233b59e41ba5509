"""Search: backends, their choice, and the partitioned index over them."""

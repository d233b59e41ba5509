"""warpmem inside other frameworks, a file each. Nothing here is imported unless it is asked for."""

"""warpmem: long-term memory for AI agents, durable on disk and searched exactly.

    import warpmem
    with warpmem.open("memory.db") as memory:
        memory.add("Nadia moved to Porto.", user_id="nadia")
        print(memory.search("where does she live?", user_id="nadia")[0].item.text)

Importing this package opens no socket, starts no thread and initialises no accelerator.
"""

from typing import TYPE_CHECKING, Any

from . import errors
from .aio import AsyncMemory
from .compose import open
from .config import Config, load_config
from .errors import WarpmemError
from .memory import Memory
from .records import ErasureReceipt, KnownBackup
from .types import (
    KINDS,
    AddResult,
    Change,
    ContextBlock,
    Hit,
    ItemPage,
    MemoryItem,
    Message,
    Neighbors,
    NewItem,
    Owner,
    RankBy,
    Ranking,
    Scope,
    SearchResult,
    Stats,
    Version,
)

if TYPE_CHECKING:
    from .index import VectorIndex

__version__ = "0.1.0"

__all__ = [
    "KINDS",
    "AddResult",
    "AsyncMemory",
    "Change",
    "Config",
    "ContextBlock",
    "ErasureReceipt",
    "Hit",
    "ItemPage",
    "KnownBackup",
    "Memory",
    "MemoryItem",
    "Message",
    "Neighbors",
    "NewItem",
    "Owner",
    "RankBy",
    "Ranking",
    "Scope",
    "SearchResult",
    "Stats",
    "VectorIndex",
    "Version",
    "WarpmemError",
    "errors",
    "load_config",
    "open",
]


def __getattr__(name: str) -> Any:
    # Imported when it is asked for: a store does not need it.
    if name == "VectorIndex":
        from .index import VectorIndex

        return VectorIndex
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

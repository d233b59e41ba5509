"""warpmem: long-term memory for AI agents, durable on disk and searched exactly.

    import warpmem
    with warpmem.open("memory.db") as memory:
        memory.add("Nadia moved to Porto.", user_id="nadia")
        print(memory.search("where does she live?", user_id="nadia")[0].item.text)

Importing this package opens no socket, starts no thread and initialises no accelerator.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import errors
from .config import VERSION, Config, load_config
from .errors import WarpmemError
from .records import Backup, ErasureReceipt, KnownBackup
from .types import (
    KINDS,
    AddResult,
    Budget,
    Change,
    ContextBlock,
    Cost,
    DocumentResult,
    Entity,
    EntityPage,
    Extraction,
    Hit,
    ItemPage,
    JobReport,
    Media,
    MemoryItem,
    Message,
    Neighbors,
    NewEntity,
    NewItem,
    NewRelation,
    Owner,
    PendingWork,
    Price,
    RankBy,
    Ranking,
    ReembedStatus,
    Relation,
    RelationPage,
    Scope,
    ScopeWeight,
    SearchResult,
    Stats,
    Version,
)

if TYPE_CHECKING:
    from .aio import AsyncMemory
    from .compose import open
    from .index import VectorIndex
    from .ingest.happened import happened
    from .memory import Memory
    from .memory.importing import ImportReport
    from .memory.training import TrainingRecord, TrainingStream
    from .storage.reports import Fault, Lost, RepairReport, VerifyReport
    from .upkeep import backup, backups, repair, restore, verify
    from .write_server import WriteServer, serve

__version__ = VERSION

__all__ = [
    "KINDS",
    "AddResult",
    "AsyncMemory",
    "Backup",
    "Budget",
    "Change",
    "Config",
    "ContextBlock",
    "Cost",
    "DocumentResult",
    "Entity",
    "EntityPage",
    "ErasureReceipt",
    "Extraction",
    "Fault",
    "Hit",
    "ImportReport",
    "ItemPage",
    "JobReport",
    "KnownBackup",
    "Lost",
    "Media",
    "Memory",
    "MemoryItem",
    "Message",
    "Neighbors",
    "NewEntity",
    "NewItem",
    "NewRelation",
    "Owner",
    "PendingWork",
    "Price",
    "RankBy",
    "Ranking",
    "ReembedStatus",
    "Relation",
    "RelationPage",
    "RepairReport",
    "Scope",
    "ScopeWeight",
    "SearchResult",
    "Stats",
    "TrainingRecord",
    "TrainingStream",
    "VectorIndex",
    "VerifyReport",
    "Version",
    "WarpmemError",
    "WriteServer",
    "backup",
    "backups",
    "errors",
    "happened",
    "load_config",
    "open",
    "repair",
    "restore",
    "serve",
    "verify",
]


# Imported when they are asked for: who names a type alone needs no store, and a store needs not all of it.
_LATER = {
    "open": "compose",
    "Memory": "memory",
    "ImportReport": "memory.importing",
    "AsyncMemory": "aio",
    "VectorIndex": "index",
    "happened": "ingest.happened",
    **dict.fromkeys(("TrainingRecord", "TrainingStream"), "memory.training"),
    **dict.fromkeys(("Fault", "Lost", "RepairReport", "VerifyReport"), "storage.reports"),
    **dict.fromkeys(("backup", "backups", "repair", "restore", "verify"), "upkeep"),
    **dict.fromkeys(("WriteServer", "serve"), "write_server"),
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        found = globals()[name] = getattr(import_module(f".{_LATER[name]}", __name__), name)
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

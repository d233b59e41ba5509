"""The values that cross warpmem's public API: plain, frozen msgspec structs.

All datetimes are timezone-aware. All ids are opaque strings. Metadata is JSON (None, bool, int, float, str,
list, dict with str keys). Numbers may come as those of NumPy and other libraries; what comes back is plain.
"""

from .costs import Budget as Budget
from .costs import Cost as Cost
from .costs import Price as Price
from .extraction import Extraction as Extraction
from .graph import (
    Entity as Entity,
)
from .graph import (
    EntityPage as EntityPage,
)
from .graph import (
    NewEntity as NewEntity,
)
from .graph import (
    NewRelation as NewRelation,
)
from .graph import (
    Relation as Relation,
)
from .graph import (
    RelationPage as RelationPage,
)
from .items import (
    KINDS as KINDS,
)
from .items import (
    Action as Action,
)
from .items import (
    AddResult as AddResult,
)
from .items import (
    DocumentResult as DocumentResult,
)
from .items import (
    Durability as Durability,
)
from .items import (
    EmbedWhen as EmbedWhen,
)
from .items import (
    Format as Format,
)
from .items import (
    ItemUpdate as ItemUpdate,
)
from .items import (
    Media as Media,
)
from .items import (
    MemoryItem as MemoryItem,
)
from .items import (
    Message as Message,
)
from .items import (
    Modality as Modality,
)
from .items import (
    NewItem as NewItem,
)
from .items import (
    Operation as Operation,
)
from .items import (
    Owner as Owner,
)
from .items import (
    Scope as Scope,
)
from .ranking import (
    RankBy as RankBy,
)
from .ranking import (
    Ranking as Ranking,
)
from .ranking import (
    ScopeWeight as ScopeWeight,
)
from .results import (
    Change as Change,
)
from .results import (
    ColumnType as ColumnType,
)
from .results import (
    ContextBlock as ContextBlock,
)
from .results import (
    Hit as Hit,
)
from .results import (
    ItemPage as ItemPage,
)
from .results import (
    JobReport as JobReport,
)
from .results import (
    Metric as Metric,
)
from .results import (
    Neighbors as Neighbors,
)
from .results import (
    Order as Order,
)
from .results import (
    PendingWork as PendingWork,
)
from .results import (
    ReembedStatus as ReembedStatus,
)
from .results import (
    SearchResult as SearchResult,
)
from .results import (
    Stats as Stats,
)
from .results import (
    Storage as Storage,
)
from .results import (
    Version as Version,
)

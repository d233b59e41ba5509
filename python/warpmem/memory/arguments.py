"""Checks of what callers pass, shared by the reading and the writing side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from ..config import MAX_K, MAX_NAMES
from ..errors import InputError, InvalidScope, NotFound
from ..ops.clock import to_micros
from ..ops.texts import check_name as check_name
from ..records import NEVER
from ..types import MemoryItem, Modality, Scope, ScopeWeight
from ..types.items import KIND_NAME
from ..types.scalars import float_of, integer

_MODALITIES: tuple[str, ...] = get_args(Modality)


def one_scope(
    scope: Scope | None, user_id: str | None, agent_id: str | None, run_id: str | None, corpus_id: str | None
) -> Scope | None:
    """The scope that keyword ids or `scope` name; None when neither does. Raises InvalidScope on both."""
    if scope is not None:
        if not (user_id is None and agent_id is None and run_id is None and corpus_id is None):
            raise InvalidScope("give scope=Scope(...) or ids, not both")
        return check_scope(scope)
    if user_id is None and agent_id is None and run_id is None and corpus_id is None:
        return None
    return Scope(user_id=user_id, agent_id=agent_id, run_id=run_id, corpus_id=corpus_id)


def check_scope(scope: Any) -> Scope | None:
    """None or a Scope. Raises InvalidScope."""
    if scope is None or isinstance(scope, Scope):
        return scope
    raise InvalidScope(f"scope must be a warpmem.Scope, not {type(scope).__name__}")


def check_modality(value: Any) -> Modality:
    """One of the modalities, as a plain str. Raises InputError."""
    if not isinstance(value, str) or value not in _MODALITIES:
        raise InputError(f"modality must be one of {', '.join(_MODALITIES)}")
    return str.__str__(value)  # type: ignore[return-value]


def required(scope: Scope | None) -> Scope:
    """The scope, or InvalidScope: a missing scope is never "everything"."""
    if scope is None:
        raise InvalidScope(
            "whose memory? give user_id=, agent_id=, run_id=, corpus_id= or scope=; there is no default scope"
        )
    return scope


def check_kind(kind: Any) -> str:
    """A kind's name, as a plain str. Raises InputError."""
    if not isinstance(kind, str) or not KIND_NAME.fullmatch(kind):
        raise InputError(
            "a kind is 1 to 64 characters: a lower-case letter, then letters, digits or underscores"
        )
    return str.__str__(kind)


def check_share(value: Any, name: str) -> float:
    """A number from 0 to 1. Raises InputError."""
    number = float_of(value)
    if number is None or not 0.0 <= number <= 1.0:
        raise InputError(f"{name} must be a number from 0 to 1")
    return number


def check_names(values: Any, name: str, most: int = MAX_NAMES) -> tuple[str, ...]:
    """A list of short texts, up to `most`. Raises InputError."""
    if type(values) is tuple and not values:
        return ()
    if isinstance(values, str) or not isinstance(values, (list, tuple, Sequence)):
        raise InputError(f"{name} must be a list of strings, not {type(values).__name__}")
    if len(values) > most:
        raise InputError(f"{name} may hold {most} entries, not {len(values)}")
    return tuple(check_name(value, f"{name}[{i}]") for i, value in enumerate(values))


def most_names(kind: str) -> int:
    """How many sources an item may be given: memories that are made of a message name it besides its own."""
    return MAX_NAMES - 1 if kind == "message" else MAX_NAMES


def check_count(value: Any, name: str, most: int = MAX_K) -> int:
    """An int from 1 to `most`. Raises InputError."""
    return integer(value, name, 1, most)


def check_period(value: Any, name: str, ends: Sequence[str] = ()) -> tuple[int, int]:
    """The first and the last microsecond of (first, end), each an aware datetime or None for no bound. ends:
    what the caller calls the two. Raises InputError."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise InputError(f"{name} must be (first, end), two datetimes of which one may be None")
    first, end = value
    names = ends or (f"{name}[0]", f"{name}[1]")
    since = -NEVER if first is None else to_micros(first, names[0])
    until = NEVER if end is None else to_micros(end, names[1])
    if until <= since or (first is None and end is None):
        raise InputError(f"{name} must end after it begins, not at {end} after {first}")
    return since, until - 1


def check_kinds(kinds: Any) -> tuple[str, ...]:
    """A non-empty list of kinds. Raises InputError."""
    if isinstance(kinds, str) or not isinstance(kinds, Sequence) or not kinds:
        raise InputError("kinds must be a non-empty list of kinds")
    return tuple(check_kind(kind) for kind in kinds)


def check_scopes(scopes: Any) -> tuple[Scope, ...]:
    """A list of scopes as it stands. Raises InvalidScope."""
    if not isinstance(scopes, (list, tuple)):
        raise InvalidScope(f"scopes must be a list of warpmem.Scope, not {type(scopes).__name__}")
    for entry in scopes:
        if not isinstance(entry, Scope):
            raise InvalidScope(f"scopes must hold warpmem.Scope, not {type(entry).__name__}")
    return tuple(scopes)


def search_scopes(scopes: Any, scope: Scope | None) -> tuple[Scope, ...]:
    """The scopes of one search, each once: by keywords or as a list. Raises InvalidScope."""
    if scopes is None:
        return (required(scope),)
    if scope is not None:
        raise InvalidScope("give scopes or one scope, not both")
    whose = tuple(dict.fromkeys(check_scopes(scopes)))
    if not whose:
        raise InvalidScope("scopes must not be empty: there is no default scope")
    return whose


def weighted_scopes(
    scopes: Any, scope: Scope | None
) -> tuple[tuple[Scope, ...], tuple[ScopeWeight, ...] | None]:
    """The scopes of one search as `search_scopes` has them, and their weights where one has some. Raises
    InvalidScope."""
    if not isinstance(scopes, (list, tuple)) or not any(isinstance(entry, ScopeWeight) for entry in scopes):
        return search_scopes(scopes, scope), None
    shares = tuple(entry if isinstance(entry, ScopeWeight) else ScopeWeight(entry) for entry in scopes)
    whose = search_scopes([share.scope for share in shares], scope)
    if len(whose) < len(shares):
        raise InvalidScope("a scope with a weight stands in scopes twice")
    return whose, shares


def scopes_each(
    scopes: Any, queries: Any
) -> tuple[list[tuple[Scope, ...]], list[tuple[ScopeWeight, ...] | None] | None]:
    """Of many queries, in order, the scopes of each, and their weights where any has some. Raises
    InputError."""
    if not isinstance(scopes, (list, tuple)):
        raise InvalidScope(f"scopes must be a list of warpmem.Scope, not {type(scopes).__name__}")
    if queries is not None and not isinstance(queries, (list, tuple)):
        raise InputError(f"queries must be a list of strings, not {type(queries).__name__}")
    found = [weighted_scopes(one if isinstance(one, (list, tuple)) else (one,), None) for one in scopes]
    if queries is not None and len(queries) != len(found):
        raise InputError(
            f"expected an entry of scopes for each query: {len(queries)} queries, {len(found)} scopes"
        )
    shares = [own for _, own in found]
    return [whose for whose, _ in found], shares if any(shares) else None


def check_durability(durability: Any) -> None:
    """None, "sync" or "os". Raises InputError."""
    if durability is not None and (not isinstance(durability, str) or durability not in ("sync", "os")):
        raise InputError("durability must be 'sync' or 'os'")


def check_flag(value: Any, name: str) -> bool:
    """True or False. Raises InputError."""
    if not isinstance(value, bool):
        raise InputError(f"{name} must be True or False, not {type(value).__name__}")
    return value


def existing(item: MemoryItem | None) -> MemoryItem:
    """The item, or NotFound."""
    if item is None:
        raise NotFound("no such item in this scope")
    return item


def attributes(scope: Scope) -> tuple[str | None, str | None]:
    """(agent_id, run_id) that narrow within the owner; the id that is the owner itself does not."""
    kind = scope.owner.type
    return (scope.agent_id if kind == "user" else None, scope.run_id if kind in ("user", "agent") else None)

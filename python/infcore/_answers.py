"""Which of an engine's answers are kept, and for whom."""

from typing import TYPE_CHECKING, TypeAlias, TypedDict

from infcore.errors import InvalidType

if TYPE_CHECKING:
    from infcore.cache import Cache

MaybeCache: TypeAlias = "Cache | None"


class Answers(TypedDict):
    """As EngineCore takes it."""

    cache: MaybeCache
    cache_is_shared: bool


def answers(cache: MaybeCache, cache_is_shared: bool) -> Answers:
    """Raises InvalidType where the cache is none."""
    if cache is not None:
        from infcore.cache import Cache

        if not isinstance(cache, Cache):
            raise InvalidType(f"cache is {type(cache).__name__}; allowed: an infcore.Cache, or None")
    if not isinstance(cache_is_shared, bool):
        raise InvalidType(f"cache_is_shared is {type(cache_is_shared).__name__}; allowed: a bool")
    return {"cache": cache, "cache_is_shared": cache_is_shared}

"""Plain values over the engine that keeps records: `Cache`."""

from tierkit.cache.face import Cache
from tierkit.cache.memoizing import Memoized

__all__ = ["Cache", "Memoized"]

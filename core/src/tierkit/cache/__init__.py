"""Plain values over the engine that keeps records: `Cache`."""

from tierkit.cache.face import Cache
from tierkit.cache.memoizing import Memoized
from tierkit.cache.options import LoadSettings

__all__ = ["Cache", "LoadSettings", "Memoized"]

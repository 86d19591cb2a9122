"""The methods of `CacheManager`, a file for each family of them; opening, reading and closing are in `manager`."""

from tierkit.face.changing import ChangingMethods
from tierkit.face.examination import ExaminationMethods
from tierkit.face.files import FileMethods
from tierkit.face.filtering import FilterMethods
from tierkit.face.health import HealthMethods
from tierkit.face.leasing import LeaseMethods
from tierkit.face.queries import QueryMethods
from tierkit.face.upkeep import UpkeepMethods
from tierkit.face.warming import WarmingMethods
from tierkit.face.writing import WritingMethods

__all__ = [
    "ChangingMethods",
    "ExaminationMethods",
    "FileMethods",
    "FilterMethods",
    "HealthMethods",
    "LeaseMethods",
    "QueryMethods",
    "UpkeepMethods",
    "WarmingMethods",
    "WritingMethods",
]

"""pandas, which pyspark's client and Sail import and no run makes use of: a quarter of one of a million ratings."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib import import_module, util
from importlib.metadata import version
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

TYPES = "pandas.api.types"


class Later(ModuleType):
    """A module that is imported as soon as something of it is used."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


@contextmanager
def pandas_later() -> Iterator[None]:
    """Lets pyspark's client be imported without pandas, which is then imported as soon as something of it is used."""
    if "pandas" in sys.modules or (spec := util.find_spec("pandas")) is None:
        yield
        return
    pandas: Any = Later("pandas")
    pandas.__spec__ = spec
    # all that the client looks at while it is imported
    pandas.__version__, pandas.DataFrame = version("pandas"), Any
    types = ModuleType(TYPES)
    for name in ("is_datetime64_dtype", "is_timedelta64_dtype"):
        setattr(types, name, lambda *arguments, name=name: getattr(import_module(TYPES), name)(*arguments))
    passing = {"pandas.api": ModuleType("pandas.api"), TYPES: types}
    sys.modules |= {"pandas": pandas, **passing}
    try:
        yield
    finally:
        del pandas.DataFrame
        for name in passing:
            del sys.modules[name]

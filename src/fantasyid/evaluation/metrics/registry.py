"""All metrics there are: every file of this folder that has `METRICS`, so that a new one is one new file."""

import pkgutil
from functools import cache
from importlib import import_module
from typing import Any

from fantasyid.core.errors import InvalidRequestError
from fantasyid.evaluation import metrics
from fantasyid.evaluation.metrics.interface import Metric


@cache
def all_metrics() -> tuple[Metric[Any], ...]:
    """Every metric, by the names of their files."""
    modules = [import_module(f"{metrics.__name__}.{file.name}") for file in pkgutil.iter_modules(metrics.__path__)]
    found = tuple(metric for module in modules for metric in getattr(module, "METRICS", ()))
    assert len({metric.definition.key for metric in found}) == len(found), "two metrics have one key"
    return found


def metric_of(key: str) -> Metric[Any]:
    """The metric of a key.

    Raises:
        InvalidRequestError: There is none.
    """
    for metric in all_metrics():
        if metric.definition.key == key:
            return metric
    known = ", ".join(metric.definition.key for metric in all_metrics())
    raise InvalidRequestError(f"There is no metric {key!r}; there are {known}.")

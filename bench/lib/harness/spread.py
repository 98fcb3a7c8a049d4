"""Medians and spreads over the rounds of a run."""

from collections.abc import Iterable
from statistics import median


def spread(values: Iterable[float]) -> dict:
    """Median, smallest and largest, and how many there were."""
    values = list(values)
    if not values:
        return {"median": None, "low": None, "high": None, "count": 0}
    return {"median": median(values), "low": min(values), "high": max(values), "count": len(values)}


def ratio(numerator: float | None, denominator: float | None) -> float | None:
    if numerator is None or not denominator:
        return None
    return numerator / denominator

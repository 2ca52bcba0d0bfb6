"""Typed access to the fields of a config file: a value of a wrong type is a named error."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from ropeconv.words.errors import BrokenFile

LARGEST_FLOAT = sys.float_info.max
SMALLEST, LARGEST = 1e-6, 1e12  # of thetas, factors and lengths: far outside of any model's


@dataclass(frozen=True, kw_only=True)
class Fields:
    """A JSON object and the name it is known by. A null is an absent field."""

    origin: str
    values: dict[str, Any]

    def integer(self, key: str) -> int | None:
        """An integer field."""
        value = self.values.get(key)
        if value is None or type(value) is int:
            return value
        raise self._wrong(key, value, "an integer")

    def number(self, key: str) -> float | None:
        """A field with any number."""
        value = self.values.get(key)
        if value is None:
            return None
        if type(value) in (int, float) and abs(value) <= LARGEST_FLOAT:
            return float(value)
        raise self._wrong(key, value, "a number")

    def positive(self, key: str) -> float | None:
        """A number that takes part in a division or a power: none of an absurd size."""
        value = self.number(key)
        if value is None or SMALLEST <= value <= LARGEST:
            return value
        raise self._wrong(key, value, f"a number from {SMALLEST:g} to {LARGEST:g}")

    def flag(self, key: str) -> bool | None:
        """A field that is true or false."""
        value = self.values.get(key)
        if value is None or isinstance(value, bool):
            return value
        raise self._wrong(key, value, "true or false")

    def text(self, key: str) -> str | None:
        """A field with a string."""
        value = self.values.get(key)
        if value is None or isinstance(value, str):
            return value
        raise self._wrong(key, value, "a string")

    def table(self, key: str) -> Fields | None:
        """A nested object."""
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, dict):
            return Fields(origin=f"{self.origin}: {key}", values=value)
        raise self._wrong(key, value, "an object")

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of positive numbers; empty if absent."""
        value = self.values.get(key)
        if value is None:
            return ()
        if isinstance(value, list) and all(
            type(item) in (int, float) and SMALLEST <= item <= LARGEST for item in value
        ):
            return tuple(float(item) for item in value)
        raise self._wrong(key, value, "a list of positive numbers")

    def integers(self, key: str) -> int | tuple[int, ...] | None:
        """One integer or a list of them, as token ids are."""
        value = self.values.get(key)
        if value is None or type(value) is int:
            return value
        if isinstance(value, list) and all(type(item) is int for item in value):
            return tuple(value)
        raise self._wrong(key, value, "an integer or a list of integers")

    def required(self, key: str) -> float:
        """A positive number that must be there."""
        value = self.positive(key)
        if value is None:
            raise BrokenFile(what=f"`{self.origin}` has no `{key}`")
        return value

    def _wrong(self, key: str, value: object, expected: str) -> BrokenFile:
        return BrokenFile(
            what=f"`{self.origin}` has `{key}` = {str(value)[:60]}, expected {expected}"
        )

"""The kernels' tests run on a CUDA device where there is one, else in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch

import ropeconv.kernels  # noqa: F401 - before any test can import Triton: it decides the backend


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))

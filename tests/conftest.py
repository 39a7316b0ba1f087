"""What holds for every test: random numbers are those of every run, nothing drops at random, signals do as before."""

import signal
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup() -> None:
    """What a fixture draws does not depend on the tests before it."""
    torch.manual_seed(0)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    """What a test draws does not depend on the tests before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _dropout_only_where_it_is_meant(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With dropout a network answers otherwise each time, so that a test of what changes its answer proves nothing.

    A test that trains with it says so: `@pytest.mark.dropout`.
    """
    if request.node.get_closest_marker("dropout"):
        return
    dropout = torch.nn.functional.dropout

    def without(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
        assert not training or p == 0, "a network drops at random in this test: call .eval(), or mark the test dropout"
        return dropout(input, p, training, inplace)

    monkeypatch.setattr(torch.nn.functional, "dropout", without)


@pytest.fixture(autouse=True)
def _signals_are_handled_as_before() -> Iterator[None]:
    """What a command does about signals ends with it, so that Ctrl-C and SIGTERM end the tests."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before

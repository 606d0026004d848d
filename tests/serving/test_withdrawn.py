import pytest

from cosmos_triton.errors import InvalidInput
from cosmos_triton.serving import withdrawn as module
from cosmos_triton.serving.withdrawn import Withdrawn, check_cancel_id, check_request_id


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_withdrawn_id_refuses_one_request(clock: Clock) -> None:
    withdrawn = Withdrawn(clock)
    withdrawn.add("a")
    assert not withdrawn.take("b")
    assert withdrawn.take("a")
    assert not withdrawn.take("a")


def test_it_is_forgotten_after_a_minute(clock: Clock) -> None:
    withdrawn = Withdrawn(clock)
    withdrawn.add("a")
    clock.now += 61
    assert not withdrawn.take("a")
    withdrawn.add("b")
    clock.now += 61
    withdrawn.add("c")
    assert len(withdrawn) == 1


def test_withdrawing_again_starts_the_minute_anew(clock: Clock) -> None:
    withdrawn = Withdrawn(clock)
    withdrawn.add("a")
    clock.now += 40
    withdrawn.add("b")
    withdrawn.add("a")
    clock.now += 40
    assert withdrawn.take("a")


def test_the_memory_of_ids_is_bounded_and_the_oldest_is_forgotten(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_REMEMBERED", 3)
    withdrawn = Withdrawn(clock)
    for request_id in "abcd":
        withdrawn.add(request_id)
    assert len(withdrawn) == 3
    assert [request_id for request_id in "abcd" if withdrawn.take(request_id)] == ["b", "c", "d"]


def test_an_empty_id_is_nobodys() -> None:
    with pytest.raises(InvalidInput, match="cancel_id is empty; a request without an id cannot be cancelled"):
        check_cancel_id("")
    check_request_id("")


@pytest.mark.parametrize("request_id", ["x" * 129, "é" * 65])
def test_ids_are_bounded(request_id: str) -> None:
    size = len(request_id.encode())
    with pytest.raises(InvalidInput, match=f"cancel_id has {size} bytes; at most 128 are taken"):
        check_cancel_id(request_id)
    with pytest.raises(InvalidInput, match=f"the request's id has {size} bytes; at most 128 are taken"):
        check_request_id(request_id)


def test_an_id_of_the_full_length_is_taken() -> None:
    check_cancel_id("x" * 128)
    check_request_id("x" * 128)

"""Who may come in."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from cosmos_triton.server.admission import Admission, Refused, own_id


def counted(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


def test_a_full_server_refuses_and_takes_again_when_one_has_left() -> None:
    async def scene() -> CollectorRegistry:
        registry = CollectorRegistry()
        admission = Admission(1, registry)
        with admission.admitted("a"):
            assert counted(registry, "cosmos_requests_in_flight") == 1
            with pytest.raises(Refused, match="full: it has 1 requests"), admission.admitted("b"):
                pass
        with admission.admitted("b"):
            pass
        return registry

    registry = asyncio.run(scene())
    assert counted(registry, "cosmos_requests_started_total") == 2
    assert counted(registry, "cosmos_requests_ended_total", outcome="ok") == 2
    assert counted(registry, "cosmos_requests_refused_total", why="full") == 1
    assert counted(registry, "cosmos_requests_in_flight") == 0


def test_draining_refuses_and_waits_for_those_inside() -> None:
    async def scene() -> None:
        admission = Admission(2, CollectorRegistry())
        leave = asyncio.Event()

        async def video() -> None:
            with admission.admitted("a"):
                await leave.wait()

        task = asyncio.ensure_future(video())
        await asyncio.sleep(0)
        admission.draining = True
        with pytest.raises(Refused, match="draining"), admission.admitted("b"):
            pass
        assert not await admission.empty(0.01)
        leave.set()
        assert await admission.empty(1)
        await task

    asyncio.run(scene())


def test_the_outcome_is_counted_whatever_ends_a_request() -> None:
    async def scene() -> CollectorRegistry:
        registry = CollectorRegistry()
        admission = Admission(3, registry)
        with pytest.raises(KeyError), admission.admitted("a"):
            raise KeyError("a")
        with pytest.raises(asyncio.CancelledError), admission.admitted("b"):
            raise asyncio.CancelledError
        with admission.admitted("c") as inside:
            assert admission.lose({inside.id, "unknown"}, "ar_sampler died") == 1
            assert inside.lost.result() == "ar_sampler died"
        return registry

    registry = asyncio.run(scene())
    for outcome in ("error", "cancelled", "lost"):
        assert counted(registry, "cosmos_requests_ended_total", outcome=outcome) == 1


def test_an_endless_id_is_refused() -> None:
    async def scene() -> None:
        with (
            pytest.raises(ValueError, match="129 bytes, at most 128"),
            Admission(1, CollectorRegistry()).admitted("x" * 129),
        ):
            pass

    asyncio.run(scene())


@pytest.mark.parametrize("client_id", ["", "clip-7", "../../etc", "a b\nc", "é" * 60])
def test_ids_inside_differ_and_can_be_the_names_of_files(client_id: str) -> None:
    first, second = own_id(client_id), own_id(client_id)
    assert first != second
    assert "/" not in first
    assert first.isascii()
    assert len(first) < 100

import mmap
import os
from pathlib import Path

from cosmos_triton.mapped import mapped_by_any_process, regions


def test_a_mapped_file_is_found_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "with a space"
    path.write_bytes(bytes(3 * mmap.PAGESIZE))
    offset, length = mmap.ALLOCATIONGRANULARITY, mmap.PAGESIZE
    with path.open("rb") as file:
        view = mmap.mmap(file.fileno(), length, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE, offset=offset)
    (region,) = [region for region in regions() if region.path == path]
    assert (region.offset, region.stop - region.start, region.private) == (offset, length, True)
    assert path in mapped_by_any_process()
    view.close()
    assert path not in mapped_by_any_process()


def test_a_process_that_is_gone_maps_nothing() -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    assert regions(pid) == []

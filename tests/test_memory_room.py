"""How much memory there is: read from folders that look as Linux's do."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from fastdeploy_diffusion.memory_room import (
    MemoryRoom,
    find_memory_room,
    format_size,
    measure_own_memory,
)

MIB = 2**20


def write(root, files):
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


@pytest.fixture
def machine(tmp_path):
    """8 GiB available, 1 GiB of swap, no control group."""
    text = "MemTotal: 16777216 kB\nMemAvailable:    8388608 kB\nSwapFree: 1048576 kB\n"
    return write(tmp_path, {"proc/meminfo": text, "proc/self/status": "VmSize: 100 kB\n"})


@pytest.fixture(autouse=True)
def _without_a_limit_of_its_own(monkeypatch):
    unlimited = (resource.RLIM_INFINITY,) * 2
    monkeypatch.setattr(resource, "getrlimit", lambda kind: unlimited)


def test_what_is_available_and_swap_count(machine):
    assert find_memory_room(machine) == MemoryRoom(9216 * MIB, "this machine")


def test_other_systems_do_not_tell(tmp_path):
    assert find_memory_room(tmp_path) is None
    assert measure_own_memory(tmp_path) == 0


def test_a_group_without_a_limit_tells_nothing(tmp_path):
    folder = "sys/fs/cgroup/memory"
    files = {"limit_in_bytes": "9223372036854771712\n", "usage_in_bytes": "5\n"}
    write(tmp_path, {f"{folder}/memory.{name}": text for name, text in files.items()})
    write(tmp_path, {"proc/self/cgroup": "3:memory:/\n"})
    assert find_memory_room(tmp_path) is None


def test_a_group_of_version_2_limits_and_so_do_those_around_it(machine):
    groups = machine / "sys/fs/cgroup"
    write(
        machine,
        {
            "proc/self/cgroup": "0::/outer/inner\n",
            "sys/fs/cgroup/outer/memory.max": f"{3072 * MIB}\n",
            "sys/fs/cgroup/outer/memory.current": f"{1024 * MIB}\n",
            "sys/fs/cgroup/outer/memory.stat": "anon 7\nfile 9\n",
            "sys/fs/cgroup/outer/inner/memory.max": "max\n",
            "sys/fs/cgroup/outer/inner/memory.current": "5\n",
        },
    )
    # With a GiB of swap, as elsewhere.
    expected = MemoryRoom(3072 * MIB, f"the control group {groups / 'outer'}")
    assert find_memory_room(machine) == expected
    write(machine, {"sys/fs/cgroup/outer/inner/memory.max": f"{512 * MIB}"})
    assert find_memory_room(machine).limit == f"the control group {groups / 'outer/inner'}"


def test_pages_of_files_in_a_group_can_be_dropped(machine):
    write(
        machine,
        {
            "proc/meminfo": "MemAvailable: 8388608 kB\n",
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": str(1000 * MIB),
            "sys/fs/cgroup/memory.current": str(900 * MIB),
            "sys/fs/cgroup/memory.stat": f"inactive_file {300 * MIB}\nactive_file {100 * MIB}\n",
        },
    )
    assert find_memory_room(machine).size == 500 * MIB


@pytest.mark.parametrize("path", ["/job", "/docker/the-path-of-the-host"])
def test_a_group_of_version_1(machine, path):
    folder = "sys/fs/cgroup/memory" + ("/job" if path == "/job" else "")
    write(
        machine,
        {
            "proc/meminfo": "MemAvailable: 8388608 kB\n",
            "proc/self/cgroup": f"9:name=systemd:/x\n4:cpu,memory:{path}\n0::/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "1\n",
            f"{folder}/memory.limit_in_bytes": f"{3 * 1024 * MIB}\n",
            f"{folder}/memory.usage_in_bytes": f"{1024 * MIB}\n",
            f"{folder}/memory.stat": f"inactive_file 1\ntotal_inactive_file {24 * MIB}\n",
        },
    )
    room = find_memory_room(machine)
    assert room == MemoryRoom(2072 * MIB, f"the control group {machine / folder}")


def test_a_full_group_has_no_room(machine):
    write(
        machine,
        {
            "proc/meminfo": "MemAvailable: 8388608 kB\n",
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": "1000",
            "sys/fs/cgroup/memory.current": "2000",
        },
    )
    assert find_memory_room(machine).size == 0


def test_the_limit_of_the_process(machine, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (4096 * MIB, resource.RLIM_INFINITY))
    write(machine, {"proc/self/status": f"VmSize: {1024 * 1024} kB\nRssAnon: 2048 kB\n"})
    assert find_memory_room(machine) == MemoryRoom(
        3072 * MIB, "the limit of this process (ulimit -v)"
    )
    assert measure_own_memory(machine) == 2 * MIB


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_a_real_limit_is_found():
    code = (
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\n"
        "from fastdeploy_diffusion.memory_room import find_memory_room, measure_own_memory\n"
        "room = find_memory_room()\nassert 0 < room.size < 2**30, room\n"
        "assert 'ulimit -v' in room.limit\nassert 2**20 < measure_own_memory() < 2**28\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0.0 MiB"),
        (3 * MIB // 2, "1.5 MiB"),
        (3 * 2**30, "3.0 GiB"),
        (2**40 * 5 // 2, "2.5 TiB"),
        (2**60, "more than 1,000,000 TiB"),
    ],
)
def test_sizes_are_written_in_the_unit_that_suits_them(size, text):
    assert format_size(size) == text

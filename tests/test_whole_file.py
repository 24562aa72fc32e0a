"""Files that are replaced as a whole."""

import pytest
from file_powers import file_size_limit

from fastdeploy_diffusion.whole_file import write_whole


def test_what_cannot_be_written_changes_nothing(tmp_path):
    file = tmp_path / "note"
    write_whole(file, b"before")
    with file_size_limit(1000), pytest.raises(OSError, match="File too large"):
        write_whole(file, bytes(2000))
    assert file.read_bytes() == b"before"
    assert [each.name for each in tmp_path.iterdir()] == ["note"]
    write_whole(file, b"after")
    assert file.read_bytes() == b"after"


def test_a_reader_has_the_one_before_or_the_new_one(tmp_path):
    file = tmp_path / "note"
    write_whole(file, b"before")
    with file.open("rb") as reader:
        write_whole(file, b"after it")
        assert reader.read() == b"before"

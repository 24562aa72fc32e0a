"""Names of pictures: chosen so that nothing is lost, refused before the work is done."""

import errno
import shlex
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
from PIL import Image

from fastdeploy_diffusion.cli.output import OutputTarget, PictureFiles
from fastdeploy_diffusion.errors import RequestError, ResourceError


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def save(text, count=1, *, overwrite=False, level=0):
    target = OutputTarget.parse(text, overwrite=overwrite)
    target.check(count)
    files = PictureFiles(target, count)
    image = Image.new("RGB", (2, 2), (level,) * 3)
    assert [files.save(image) for _ in range(count)] == files.saved
    return list(map(str, files.saved))


def level_of(file):
    return Image.open(file).getpixel((0, 0))[0]


def test_a_folder_gets_the_next_free_name():
    assert save(".") == ["output.png"]
    assert save(".", level=1) == ["output-1.png"]
    Path("output-8.png").touch()
    Path("output-9.txt").touch()
    Path("output-x.png").touch()
    assert save(".", 2) == ["output-9.png", "output-10.png"]
    assert save(".", level=2) == ["output-11.png"]
    assert [level_of(f"output{end}.png") for end in ("", "-1", "-11")] == [0, 1, 2]


@pytest.mark.parametrize("text", ["new", "new/", "new/deep/er", "new.d/"])
def test_a_new_folder_is_made_when_there_are_pictures(text):
    target = OutputTarget.parse(text, overwrite=False)
    target.check(2)
    assert list(Path().iterdir()) == []
    assert save(text, 2) == [f"{Path(text)}/output-{number}.png" for number in (1, 2)]
    assert save(text) == [f"{Path(text)}/output.png"]


def test_a_folder_may_be_called_png():
    Path("a.png").mkdir()
    assert save("a.png") == ["a.png/output.png"]
    assert save("b.png/") == ["b.png/output.png"]


def test_a_file_of_a_given_name():
    assert save("a.png") == ["a.png"]
    assert save("B.PNG", 2) == ["B-1.png", "B-2.png"]


def test_the_ending_of_a_given_name_is_the_format():
    assert save("a.webp", 2) == ["a-1.webp", "a-2.webp"]
    assert save("b.JPG") == ["b.jpg"]
    for name, kind in (("a-1.webp", "WEBP"), ("b.jpg", "JPEG")):
        with Image.open(name) as image:
            assert image.format == kind


@pytest.mark.parametrize(("existing", "count"), [("a.png", 1), ("a-2.png", 2)])
def test_an_existing_file_is_refused_before_the_work(existing, count):
    Path(existing).write_text("mine")
    target = OutputTarget.parse("a.png", overwrite=False)
    with pytest.raises(RequestError, match=f"^{existing} exists already\n  fix: .*--overwrite"):
        target.check(count)
    assert save("a.png", count, overwrite=True, level=7)
    assert level_of(existing) == 7


def test_a_file_that_appears_during_the_work_is_kept():
    target = OutputTarget.parse("a.png", overwrite=False)
    target.check(1)
    Path("a.png").write_text("theirs")
    with pytest.raises(RequestError, match=r"a\.png exists already"):
        PictureFiles(target, 1).save(Image.new("RGB", (2, 2)))
    assert Path("a.png").read_text() == "theirs"


def test_overwrite_starts_the_names_of_a_folder_again():
    save(".")
    save(".", 2)
    assert save(".", overwrite=True, level=1) == ["output.png"]
    assert save(".", 2, overwrite=True, level=2) == ["output-1.png", "output-2.png"]
    assert sorted(map(str, Path().iterdir())) == ["output-1.png", "output-2.png", "output.png"]
    assert [level_of(f"output{end}.png") for end in ("", "-1", "-2")] == [1, 2, 2]


def test_two_commands_share_a_folder():
    target = OutputTarget.parse(".", overwrite=False)
    ours, theirs = PictureFiles(target, 2), PictureFiles(target, 2)
    dark, bright = (Image.new("RGB", (2, 2), (level,) * 3) for level in (0, 9))
    assert [ours.save(dark), theirs.save(bright)] == [Path("output-1.png"), Path("output-2.png")]
    assert [ours.save(dark), theirs.save(bright)] == [Path("output-3.png"), Path("output-4.png")]
    assert [level_of(f"output-{number}.png") for number in (1, 2, 3, 4)] == [0, 9, 0, 9]


def test_a_given_name_that_is_taken_meanwhile_ends_the_command():
    target = OutputTarget.parse("a.png", overwrite=False)
    files = PictureFiles(target, 2)
    files.save(Image.new("RGB", (2, 2)))
    Path("a-2.png").write_text("theirs")
    with pytest.raises(RequestError, match=r"a-2\.png exists already"):
        files.save(Image.new("RGB", (2, 2)))
    assert Path("a-2.png").read_text() == "theirs"
    assert files.saved == [Path("a-1.png")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.txt", r"--output is 'a\.txt'\n  allowed: .*\n  fix: --output a\.png$"),
        ("", "--output is ''\n  allowed: a file whose name ends in .png, .webp, .*, or a folder$"),
        ("-", "--output is '-'"),
        ("notes", "--output is 'notes', which is a file\n  allowed: .*, or a folder$"),
        ("notes/new", "notes is a file: no picture can lie in it"),
        ("star.png/a.png", r"star\.png is a file: no picture can lie in it"),
        ("none/a.png", "there is no folder none\n  fix: mkdir -p none$"),
        ("图 片/a.png", "there is no folder 图 片\n  fix: mkdir -p '图 片'$"),
        ("/dev/null", "--output is '/dev/null', which is no folder"),
        ("/dev/null/a.png", "/dev/null is no folder: no picture can lie in it"),
        ("loop/a.png", "loop is no folder: no picture can lie in it"),
    ],
)
def test_what_cannot_be_written_is_refused_before_the_work(text, message):
    Path("notes").touch()
    Path("star.png").touch()
    Path("loop").symlink_to("loop")
    with pytest.raises(RequestError, match=message):
        OutputTarget.parse(text, overwrite=False).check(1)


@pytest.mark.parametrize("name", ["a b.bmp", "o'clock.tiff"])
def test_the_way_to_another_format_is_a_command(name):
    with pytest.raises(
        RequestError, match="without the settings that the PNG file carries"
    ) as found:
        OutputTarget.parse(name, overwrite=False)
    words = shlex.split(found.value.fix)
    _, png, *_ = words
    png = png.removesuffix(",")
    assert save(png, level=7) == [png]
    code = words[words.index("-c") + 1]
    subprocess.run([sys.executable, "-c", code], check=True)
    with Image.open(name) as image:
        assert image.size == (2, 2)


def test_a_grid_has_a_name_of_its_own():
    for text, level in ((".", 1), (".", 2), ("a.webp", 3)):
        target = OutputTarget.parse(text, overwrite=False)
        target.check(2, with_grid=True)
        files = PictureFiles(target, 2)
        for _ in range(2):
            files.save(Image.new("RGB", (2, 2), (level,) * 3))
        files.save_grid()
        with Image.open(files.grid) as grid:
            assert (grid.size, grid.getpixel((3, 1))) == ((4, 2), (level,) * 3)
    grids = ["a-grid.webp", "output-1-grid.png", "output-3-grid.png"]
    assert sorted(map(str, Path().glob("*-grid.*"))) == grids
    for file in files.saved:
        file.unlink()
    with pytest.raises(RequestError, match=r"^a-grid\.webp exists already"):
        target.check(2, with_grid=True)


def test_one_picture_has_no_grid():
    with pytest.raises(RequestError, match=r"--grid has no effect on one picture"):
        OutputTarget.parse(".", overwrite=False).check(1, with_grid=True)


class PictureForAFullDisk:
    """A picture that the disk has no space for, once it is half written."""

    info: ClassVar = {}

    def copy(self):
        return self

    def save(self, file, **options):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_named_and_holds_no_half_a_file():
    files = PictureFiles(OutputTarget.parse("a.png", overwrite=False), 2)
    files.save(Image.new("RGB", (2, 2)))
    with pytest.raises(ResourceError, match=r"a-2\.png cannot be written: No space left") as found:
        files.save(PictureForAFullDisk())
    assert "make room" in found.value.fix
    assert list(Path().iterdir()) == files.saved == [Path("a-1.png")]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder closed to root as well")
@pytest.mark.parametrize("text", ["/proc/self/a.png", "/proc/self/new/folder"])
def test_a_folder_without_write_permission_is_refused_before_the_work(text):
    with pytest.raises(RequestError, match=r"/proc/self cannot be written: .*\n  fix: choose"):
        OutputTarget.parse(text, overwrite=False).check(1)

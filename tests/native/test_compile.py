"""Compiling C++: one file for each content, found again, whole or not there."""

import ctypes
import os
import sys
import threading

import pytest

from fastdeploy_diffusion.errors import CacheError, EngineError, EngineUnavailableError
from fastdeploy_diffusion.native.compile import compile_library, find_compiler

ANSWER = 'extern "C" __attribute__((visibility("default"))) int answer() { return ANSWER; }\n'


@pytest.fixture
def source(tmp_path):
    try:
        find_compiler()
    except EngineUnavailableError as error:
        pytest.skip(str(error))
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "answer.h").write_text("#define ANSWER 42\n")
    (folder / "answer.cpp").write_text(f'#include "answer.h"\n{ANSWER}')
    return folder / "answer.cpp"


def test_a_library_is_compiled_once_for_each_content(source, tmp_path):
    cache = tmp_path / "cache"
    first = compile_library("answer", [source], cache)
    made = first.stat().st_mtime_ns
    assert ctypes.CDLL(str(first)).answer() == 42
    assert compile_library("answer", [source], cache) == first
    assert first.stat().st_mtime_ns == made
    (source.parent / "answer.h").write_text("#define ANSWER 43\n")
    second = compile_library("answer", [source], cache)
    assert second != first
    assert ctypes.CDLL(str(second)).answer() == 43
    third = compile_library("answer", [source], cache, depends_on={"engine": "2"})
    fourth = compile_library("answer", [source], cache, flags=["-O1"])
    assert len({first, second, third, fourth}) == 4


def test_threads_that_need_the_same_library_compile_it_once(source, tmp_path):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(compile_library("a", [source], tmp_path)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    kept = sorted(each.name for each in tmp_path.iterdir() if each.is_file())
    assert kept == sorted([found[0].name, "a.lock"])


def test_what_the_compiler_says_is_in_the_error(source, tmp_path):
    source.write_text("int broken = ;\n")
    with pytest.raises(EngineError, match=r"answer\.cpp:1"):
        compile_library("answer", [source], tmp_path / "cache")
    assert [each.name for each in (tmp_path / "cache").iterdir()] == ["answer.lock"]


def test_without_a_compiler_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineUnavailableError, match="no C\\+\\+ compiler on the PATH") as caught:
        find_compiler()
    assert "install g++" in caught.value.fix
    monkeypatch.setenv("CXX", "g++-of-mine -m64")
    with pytest.raises(EngineUnavailableError, match=r"g\+\+-of-mine, which CXX names"):
        find_compiler()
    broken = tmp_path / "broken"
    broken.write_text(f"#!{sys.executable}\nraise SystemExit(3)\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    with pytest.raises(EngineUnavailableError, match="does not run"):
        find_compiler()


def test_a_folder_that_is_a_file_is_an_error_of_the_cache(source, tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(CacheError, match="cannot be kept"):
        compile_library("answer", [source], tmp_path / "cache")


def test_cxx_names_the_compiler_and_its_arguments(source, tmp_path, monkeypatch):
    (path, *_) = find_compiler().command
    monkeypatch.setenv("CXX", f"{path} -DUNUSED=1")
    assert find_compiler().command == (path, "-DUNUSED=1")
    assert os.access(compile_library("answer", [source], tmp_path), os.R_OK)

import os
import threading
from pathlib import Path

from tests.leaks import leaked_descriptors, leaked_threads, open_descriptors


def test_a_descriptor_left_open_is_reported_by_the_name_of_its_file(tmp_path: Path) -> None:
    before = open_descriptors()
    descriptor = os.open(tmp_path / "left-open", os.O_CREAT | os.O_WRONLY)
    try:
        [line] = leaked_descriptors(before)
        assert str(descriptor) in line
    finally:
        os.close(descriptor)
    assert leaked_descriptors(before) == []


def test_a_thread_left_running_is_reported_by_its_name() -> None:
    before, stop = set(threading.enumerate()), threading.Event()
    thread = threading.Thread(target=stop.wait, name="left-running")
    thread.start()
    try:
        assert leaked_threads(before, patience=0) == ["thread left-running"]
    finally:
        stop.set()
    assert leaked_threads(before) == []

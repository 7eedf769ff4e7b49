"""Memory that a step frees is there for the next one."""

import subprocess
import sys
import textwrap

import pytest

from mjx.launch.host_memory import keep_freed_memory


def test_large_blocks_of_a_thread_are_given_out_again_without_page_faults():
    """In a process of its own: the setting is for good."""
    program = """
        import ctypes, resource, threading
        from mjx.launch.host_memory import keep_freed_memory

        libc = ctypes.CDLL(None)
        libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        libc.free.argtypes, size = [ctypes.c_void_p], 256 * 2**20

        def step():
            block = libc.malloc(size)
            ctypes.memset(block, 1, size)
            libc.free(block)

        def faults():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            thread = threading.Thread(target=step)
            thread.start()
            thread.join()
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

        print(keep_freed_memory(), faults(), faults())
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], check=True, capture_output=True, text=True
    )
    kept, first, second = ran.stdout.split()
    if kept == "False":
        pytest.skip("the C library has no such settings")
    assert int(first) > 10 * int(second)


def test_a_c_library_without_the_settings_is_left_alone(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert keep_freed_memory() is False

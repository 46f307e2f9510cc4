"""Pure. The default system call filter of a container, as the `linux.seccomp` object of the bundle config.

Three answers: allowed; EPERM for what exists but is not for containers; ENOSYS for whatever is not named, so
that programs built for a newer kernel fall back to what they did before (EPERM would make them give up).
A capability given to the container opens the calls that are useless without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from itertools import chain
from typing import Any, Final

_EPERM: Final = 1
_ENOSYS: Final = 38
_EAFNOSUPPORT: Final = 97
_AF_VSOCK: Final = 40

# A program of an ABI that is not named is killed, so each machine has its 32-bit ones too. Each costs the
# runtime time at each start (5 ms for x86_64, 15 for its two others), hence none of another machine.
_ARCHITECTURES: Final = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}

# One bit of clone's flags per namespace type: cgroup, user, pid, net, ipc, uts, mount (linux/sched.h).
_NAMESPACE_FLAGS: Final = (0x02000000, 0x10000000, 0x20000000, 0x40000000, 0x08000000, 0x04000000, 0x00020000)

# Execution domains without switches that weaken a process: Linux, 32 bit, each as 2.6 too, the query.
_PERSONALITIES: Final = (0x0, 0x0008, 0x20000, 0x20008, 0xFFFFFFFF)


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_ALLOWED: Final = (
    # Open files: the permission to do harm was checked at open.
    _names("""
        read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek _llseek close
        close_range dup dup2 dup3 fcntl fcntl64 ioctl flock fsync fdatasync sync syncfs sync_file_range
        arm_sync_file_range sync_file_range2 sendfile sendfile64 splice tee vmsplice copy_file_range
        fallocate ftruncate ftruncate64 truncate truncate64 fadvise64 fadvise64_64 arm_fadvise64_64
        readahead pipe pipe2 cachestat
        """),
    # Names and attributes of files: the mount namespace bounds what can be named, modes the rest.
    _names("""
        open openat openat2 creat access faccessat faccessat2 stat stat64 lstat lstat64 fstat fstat64
        newfstatat fstatat64 oldstat oldlstat oldfstat statx statfs statfs64 fstatfs fstatfs64 readlink
        readlinkat getdents getdents64 readdir getcwd chdir fchdir mkdir mkdirat rmdir rename renameat
        renameat2 link linkat unlink unlinkat symlink symlinkat mknod mknodat umask chmod fchmod fchmodat
        fchmodat2 chown chown32 fchown fchown32 fchownat lchown lchown32 utime utimes utimensat
        utimensat_time64 futimesat name_to_handle_at getxattr lgetxattr fgetxattr getxattrat setxattr
        lsetxattr fsetxattr setxattrat listxattr llistxattr flistxattr listxattrat removexattr lremovexattr
        fremovexattr removexattrat file_getattr file_setattr inotify_init inotify_init1 inotify_add_watch
        inotify_rm_watch fanotify_mark statmount listmount
        """),
    # Memory of the process itself.
    _names("""
        brk mmap mmap2 munmap mremap mprotect madvise mincore msync mlock mlock2 munlock mlockall munlockall
        remap_file_pages memfd_create memfd_secret mseal map_shadow_stack membarrier pkey_alloc pkey_free
        pkey_mprotect process_mrelease
        """),
    # Processes and threads: the pid namespace bounds which; for clone see below.
    _names("""
        fork vfork execve execveat exit exit_group wait4 waitid waitpid getpid getppid gettid getpgid
        getpgrp setpgid getsid setsid set_tid_address set_robust_list get_robust_list set_thread_area
        get_thread_area arch_prctl prctl rseq kill tkill tgkill pidfd_open pidfd_send_signal futex
        futex_time64 futex_waitv futex_wait futex_wake futex_requeue getcpu capget capset getrlimit
        ugetrlimit setrlimit prlimit64 getrusage times sched_yield nice ptrace process_vm_readv
        process_vm_writev sched_getaffinity sched_setaffinity sched_getparam sched_setparam
        sched_getscheduler sched_setscheduler sched_getattr sched_setattr sched_get_priority_max
        sched_get_priority_min sched_rr_get_interval sched_rr_get_interval_time64 getpriority setpriority
        ioprio_get ioprio_set
        """),
    # Who the process is: changing it needs capabilities, or is a step down.
    _names("""
        getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getresuid getresuid32 getresgid
        getresgid32 getgroups getgroups32 setuid setuid32 setgid setgid32 setreuid setreuid32 setregid
        setregid32 setresuid setresuid32 setresgid setresgid32 setfsuid setfsuid32 setfsgid setfsgid32
        setgroups setgroups32
        """),
    # Signals, and what the kernel itself calls to return from them.
    _names("""
        rt_sigaction rt_sigprocmask rt_sigpending rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
        rt_sigqueueinfo rt_tgsigqueueinfo rt_sigreturn sigaltstack signal sigaction sigprocmask sigpending
        sigsuspend sigreturn signalfd signalfd4 pause alarm restart_syscall
        """),
    # Waiting for descriptors; asynchronous I/O of the old kind. io_uring is refused below.
    _names("""
        poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64 epoll_create epoll_create1
        epoll_ctl epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait epoll_pwait2 eventfd eventfd2 io_setup
        io_destroy io_submit io_cancel io_getevents io_pgetevents io_pgetevents_time64
        """),
    # Time: reading and timers. Adjusting the clock needs CAP_SYS_TIME within the call; asking does not.
    _names("""
        time gettimeofday clock_gettime clock_gettime64 clock_getres clock_getres_time64 clock_nanosleep
        clock_nanosleep_time64 nanosleep adjtimex clock_adjtime clock_adjtime64 getitimer setitimer
        timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime
        timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64
        """),
    # Sockets: the net namespace bounds them; `socket` is filtered by family. socketcall is how old 32-bit
    # programs do all of these; its arguments are in memory, where a filter cannot look.
    _names("""
        socketpair bind listen accept accept4 connect getsockname getpeername getsockopt setsockopt shutdown
        send sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64 socketcall
        """),
    # System V and POSIX IPC: the ipc namespace bounds them.
    _names("""
        ipc shmget shmat shmdt shmctl semget semop semtimedop semtimedop_time64 semctl msgget msgsnd msgrcv
        msgctl mq_open mq_unlink mq_notify mq_getsetattr mq_timedsend mq_timedsend_time64 mq_timedreceive
        mq_timedreceive_time64
        """),
    # A process making its own rights smaller.
    _names("seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self"),
    # Facts of the machine and of the running program that need no right.
    _names("uname olduname oldolduname sysinfo getrandom modify_ldt uretprobe"),
    # Calls of the ARM ABI, beyond the numbered ones.
    _names("breakpoint cacheflush set_tls"),
)

_NEVER: Final = (
    # Kernel keyrings are not bounded by any namespace: a container would find the host's keys.
    _names("add_key keyctl request_key"),
    # A second way to make most system calls, past this filter, and a source of kernel holes.
    _names("io_uring_setup io_uring_enter io_uring_register"),
    # Replacing the running kernel, or where the whole host swaps.
    _names("kexec_load kexec_file_load swapon swapoff"),
    # Makes races in the kernel winnable; memory of others moved between nodes; the kernel's virtual 8086.
    _names("userfaultfd move_pages migrate_pages vm86 vm86old"),
    # Ends of history that only exploits still call.
    _names("""
        _sysctl sysfs ustat uselib nfsservctl query_module get_kernel_syms create_module bdflush
        lookup_dcookie
        """),
)

_GATED: Final[Mapping[tuple[str, ...], tuple[str, ...]]] = {
    # Mounts and namespaces: the ways out of the box. clone is dealt with by its arguments.
    ("CAP_SYS_ADMIN",): _names("""
        mount umount umount2 mount_setattr move_mount open_tree open_tree_attr fsopen fsconfig fsmount
        fspick pivot_root setns unshare sethostname setdomainname quotactl quotactl_fd fanotify_init
        """),
    ("CAP_SYS_ADMIN", "CAP_BPF"): _names("bpf"),
    ("CAP_SYS_ADMIN", "CAP_PERFMON"): _names("perf_event_open"),
    ("CAP_SYS_ADMIN", "CAP_SYSLOG"): _names("syslog"),
    # Opening a file by a number that can be guessed passes every directory above it, and the root.
    ("CAP_DAC_READ_SEARCH",): _names("open_by_handle_at"),
    ("CAP_SYS_CHROOT",): _names("chroot"),
    ("CAP_SYS_BOOT",): _names("reboot"),
    ("CAP_SYS_MODULE",): _names("init_module finit_module delete_module"),
    ("CAP_SYS_PACCT",): _names("acct"),
    # What a debugger needs beyond ptrace, which checks for itself whose processes it may touch.
    ("CAP_SYS_PTRACE",): _names("kcmp pidfd_getfd process_madvise"),
    ("CAP_SYS_RAWIO",): _names("ioperm iopl"),
    ("CAP_SYS_TIME",): _names("settimeofday stime clock_settime clock_settime64"),
    ("CAP_SYS_TTY_CONFIG",): _names("vhangup"),
    ("CAP_SYS_NICE",): _names("get_mempolicy set_mempolicy set_mempolicy_home_node mbind"),
}


@cache
def profile(capabilities: frozenset[str], machine: str = "") -> dict[str, Any]:
    """Pure. The filter for a container with these capabilities, named as in "CAP_SYS_ADMIN".

    `machine` as uname(2) names it; unknown or not given, the filter fits every machine but is slower to load.
    Shape: OCI runtime-spec, config-linux.md, "Seccomp". One value for all who ask alike: do not change it.
    """
    every = tuple(chain.from_iterable(_ARCHITECTURES.values()))
    opened = [names for gate, names in _GATED.items() if not capabilities.isdisjoint(gate)]
    closed = [names for gate, names in _GATED.items() if capabilities.isdisjoint(gate)]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": _ENOSYS,
        "architectures": list(_ARCHITECTURES.get(machine, every)),
        "syscalls": [
            _allow(chain.from_iterable((*_ALLOWED, *opened))),
            _refuse(chain.from_iterable((*_NEVER, *closed)), _EPERM),
            *_clone("CAP_SYS_ADMIN" in capabilities),
            *_socket(),
            *_personality(),
        ],
    }


def _allow(names: Iterable[str], *arguments: Mapping[str, Any]) -> dict[str, Any]:
    return _rule(names, arguments, action="SCMP_ACT_ALLOW")


def _refuse(names: Iterable[str], errno: int, *arguments: Mapping[str, Any]) -> dict[str, Any]:
    return _rule(names, arguments, action="SCMP_ACT_ERRNO", errnoRet=errno)


def _rule(names: Iterable[str], arguments: Iterable[Mapping[str, Any]], **answer: Any) -> dict[str, Any]:
    rule = {"names": list(names), **answer}
    conditions = list(arguments)
    return {**rule, "args": conditions} if conditions else rule


def _argument(operator: str, value: int, mask: int | None = None) -> dict[str, Any]:
    """A condition on the first argument; masked: (argument & mask) == value."""
    if mask is None:
        return {"index": 0, "value": value, "op": operator}
    return {"index": 0, "value": mask, "valueTwo": value, "op": operator}


def _clone(may_make_namespaces: bool) -> list[dict[str, Any]]:
    """The flags of clone3 are in memory, where a filter cannot look: ENOSYS sends libc back to clone."""
    if may_make_namespaces:
        return [_allow(["clone", "clone3"])]
    harmless = _argument("SCMP_CMP_MASKED_EQ", 0, sum(_NAMESPACE_FLAGS))
    return [
        _allow(["clone"], harmless),
        *(_refuse(["clone"], _EPERM, _argument("SCMP_CMP_MASKED_EQ", bit, bit)) for bit in _NAMESPACE_FLAGS),
    ]


def _socket() -> list[dict[str, Any]]:
    """AF_VSOCK reaches the hypervisor past every net namespace; the answer is that of a kernel without it."""
    return [
        _allow(["socket"], _argument("SCMP_CMP_NE", _AF_VSOCK)),
        _refuse(["socket"], _EAFNOSUPPORT, _argument("SCMP_CMP_EQ", _AF_VSOCK)),
    ]


def _personality() -> list[dict[str, Any]]:
    return [_allow(["personality"], _argument("SCMP_CMP_EQ", value)) for value in _PERSONALITIES]

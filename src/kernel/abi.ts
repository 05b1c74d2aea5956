/**
 * Constants of the Linux ABI that the kernel layer passes on, with their header files.
 *
 * Both supported machines are little-endian and 64-bit; where x64 and arm64 differ the value is chosen here.
 */

export const isArm64 = process.arch === "arm64";

/** open(2), asm/fcntl.h. */
export const O_RDONLY = 0;
export const O_WRONLY = 1;
export const O_RDWR = 2;
export const O_CREAT = 0o100;
export const O_EXCL = 0o200;
export const O_TRUNC = 0o1000;
export const O_NONBLOCK = 0o4000;
export const O_DIRECT = isArm64 ? 0o200000 : 0o40000;
export const O_NOFOLLOW = isArm64 ? 0o100000 : 0o400000;
export const O_CLOEXEC = 0o2000000;
export const AT_FDCWD = -100;
export const AT_EMPTY_PATH = 0x1000;
export const F_GETFL = 3;
export const F_SETFL = 4;

/** lseek(2). SEEK_DATA and SEEK_HOLE answer -ENXIO past the last byte of the file. */
export const SEEK_SET = 0;
export const SEEK_END = 2;
export const SEEK_DATA = 3;
export const SEEK_HOLE = 4;

/** fallocate(2), linux/falloc.h. */
export const FALLOC_FL_KEEP_SIZE = 0x01;
export const FALLOC_FL_PUNCH_HOLE = 0x02;
export const FALLOC_FL_ZERO_RANGE = 0x10;

/** posix_fadvise(2). */
export const POSIX_FADV_SEQUENTIAL = 2;
export const POSIX_FADV_DONTNEED = 4;

/** mmap(2). */
export const PROT_READ = 1;
export const PROT_WRITE = 2;
export const PROT_EXEC = 4;
export const MAP_SHARED = 0x01;
export const MAP_PRIVATE = 0x02;
export const MAP_ANONYMOUS = 0x20;
export const MAP_POPULATE = 0x8000;
export const MADV_DONTNEED = 4;
export const MADV_HUGEPAGE = 14;
export const PAGE_BYTES = 4096;

/** Block device ioctls, linux/fs.h. */
export const BLKROGET = 0x125e;
export const BLKRRPART = 0x125f;
export const BLKFLSBUF = 0x1261;
export const BLKSSZGET = 0x1268;
export const BLKPBSZGET = 0x127b;
export const BLKZEROOUT = 0x127f;
export const BLKGETSIZE64 = 0x80081272;

/** ioctl_tty(2): `struct winsize`, rows and columns as 16 bits each first. */
export const TIOCGWINSZ = 0x5413;

/** Bytes in the send queue of a TCP socket that were not acknowledged, linux/sockios.h. */
export const SIOCOUTQ = 0x5411;

/** flock(2). */
export const LOCK_SH = 1;
export const LOCK_EX = 2;
export const LOCK_NB = 4;
export const LOCK_UN = 8;

/** File types of a mode, inode(7). */
export const S_IFMT = 0o170000;
export const S_IFREG = 0o100000;
export const S_IFBLK = 0o060000;
export const S_IFCHR = 0o020000;
export const S_IFDIR = 0o040000;

/** socket(2), bits/socket.h and netinet/. */
export const AF_UNIX = 1;
export const AF_INET = 2;
export const AF_INET6 = 10;
export const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;
export const SOCK_NONBLOCK = 0o4000;
export const SOCK_CLOEXEC = 0o2000000;
export const SOL_SOCKET = 1;
export const SO_REUSEADDR = 2;
export const SO_ERROR = 4;
export const SO_KEEPALIVE = 9;
export const SO_LINGER = 13;
export const SO_RCVLOWAT = 18;
export const IPPROTO_TCP = 6;
export const IPPROTO_IPV6 = 41;
export const IPV6_V6ONLY = 26;
export const TCP_NODELAY = 1;
export const TCP_NOTSENT_LOWAT = 25;
export const TCP_CORK = 3;
export const TCP_KEEPIDLE = 4;
export const TCP_KEEPINTVL = 5;
export const TCP_KEEPCNT = 6;
export const TCP_USER_TIMEOUT = 18;
export const SHUT_RD = 0;
export const SHUT_WR = 1;
export const SHUT_RDWR = 2;
export const MSG_DONTWAIT = 0x40;
export const MSG_WAITALL = 0x100;
export const MSG_NOSIGNAL = 0x4000;
export const MSG_MORE = 0x8000;

/** eventfd(2), epoll(7), poll(2). */
export const EFD_NONBLOCK = 0o4000;
export const EFD_CLOEXEC = 0o2000000;
export const EPOLL_CLOEXEC = 0o2000000;
export const EPOLL_CTL_ADD = 1;
export const EPOLL_CTL_DEL = 2;
export const EPOLL_CTL_MOD = 3;
export const EPOLLIN = 0x001;
export const EPOLLOUT = 0x004;
export const EPOLLERR = 0x008;
export const EPOLLHUP = 0x010;
export const EPOLLONESHOT = 1 << 30;
export const POLLIN = 0x001;
export const POLLOUT = 0x004;
/** `struct epoll_event` is packed on x64 alone: 32 bits of events, then 64 bits of data. */
export const EPOLL_EVENT_BYTES = isArm64 ? 16 : 12;
export const EPOLL_EVENT_DATA_OFFSET = isArm64 ? 8 : 4;
/** `struct iovec`: address and length, 64 bits each. */
export const IOVEC_BYTES = 16;
/** `struct msghdr` on 64-bit machines. */
export const MSGHDR_BYTES = 56;
/** `struct mmsghdr`: a msghdr, the bytes transferred, padding. */
export const MMSGHDR_BYTES = 64;

/** System call numbers without a wrapper in every libc, asm/unistd.h. */
export const SYS_STATX = isArm64 ? 291 : 332;
export const SYS_GETPRIORITY = isArm64 ? 141 : 140;
export const SYS_SETPRIORITY = isArm64 ? 140 : 141;
export const SYS_IO_URING_SETUP = 425;
export const SYS_IO_URING_ENTER = 426;
export const SYS_IO_URING_REGISTER = 427;
export const SYS_CACHESTAT = 451;
/** getpriority(2): the kernel's own answer is 20 minus the nice value, which ends at 19. */
export const PRIO_PROCESS = 0;
export const PRIORITY_OF_NICE_0 = 20;
export const NICE_MAX = 19;
export const STATX_BASIC_STATS = 0x7ff;
export const STATX_DIOALIGN = 0x2000;

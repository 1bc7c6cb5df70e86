/* Make calls on the files below one folder fail, as a full or broken disk would.
 *
 * Preloaded (LD_PRELOAD) into the process that writes. DISK_FAULTS_FOLDER names the folder,
 * DISK_FAULTS_ORDERS a file of `struct orders` that is shared with whoever gives them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { CREATE, OPEN, WRITE, SYNC, RESIZE, RENAME, MKDIR, READ, UNLINK, KINDS };

struct orders {                     /* little-endian int64 each: faulting.py reads and writes them */
    _Atomic int64_t armed;
    int64_t error;                  /* errno of the calls that fail */
    int64_t kinds;                  /* a bit each */
    _Atomic int64_t skip;           /* calls that still pass before the first fault */
    int64_t chance;                 /* of a fault from then on, of 2^31 */
    _Atomic int64_t most;           /* faults still to come */
    _Atomic int64_t dice;           /* state of the random numbers */
    int64_t cuts;                   /* whether every second faulted write passes in part */
    _Atomic int64_t calls[KINDS];   /* below the folder, while armed */
    _Atomic int64_t faults[KINDS];
    _Atomic int64_t cut;            /* writes cut short */
};

static struct orders *orders;
static const char *folder;
static size_t folder_length;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("DISK_FAULTS_ORDERS");
    folder = getenv("DISK_FAULTS_FOLDER");
    if (!path || !folder) return;
    folder_length = strlen(folder);
    int file = open(path, O_RDWR | O_CLOEXEC);
    void *memory = mmap(NULL, sizeof(struct orders), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (file < 0 || memory == MAP_FAILED) {
        perror("disk_faults: orders");
        abort();
    }
    orders = memory;
}

static int is_ours(const char *path) {
    return strncmp(path, folder, folder_length) == 0;
}

static int is_open_on_ours(int file) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_ours(path);
}

static uint32_t thrown(void) {
    uint64_t x = (uint64_t)atomic_fetch_add(&orders->dice, 0x1e3779b97f4a7c15LL);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return (uint32_t)((x ^ (x >> 31)) >> 33);
}

/* Whether this call on one of our files fails now; sets errno then. */
static int fails(enum kind kind) {
    int saved = errno;
    atomic_fetch_add(&orders->calls[kind], 1);
    if (!(orders->kinds >> kind & 1)) return 0;
    if (atomic_load(&orders->skip) > 0 && atomic_fetch_sub(&orders->skip, 1) > 0) return 0;
    if (thrown() >= (uint64_t)orders->chance) return errno = saved, 0;
    if (atomic_fetch_sub(&orders->most, 1) <= 0) return errno = saved, 0;
    atomic_fetch_add(&orders->faults[kind], 1);
    errno = (int)orders->error;
    return 1;
}

static int is_armed(void) {
    return orders && atomic_load(&orders->armed);
}

/* How much of a faulted write passes before the disk is full: nothing, or the first half. */
static size_t passing(size_t length) {
    if (!orders->cuts || length < 2 || (thrown() & 1)) return 0;
    atomic_fetch_add(&orders->cut, 1);
    return length / 2;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define PATH_FAULT(kind, path) if (is_armed() && is_ours(path) && fails(kind)) return -1
#define FILE_FAULT(kind, file) if (is_armed() && is_open_on_ours(file) && fails(kind)) return -1

#define OPENING(name)                                                            \
    int name(const char *path, int flags, ...) {                                 \
        static __typeof__(&name) real;                                           \
        if (!real) real = REAL(name);                                            \
        va_list more;                                                            \
        va_start(more, flags);                                                   \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more);                                                            \
        PATH_FAULT(flags & O_CREAT && access(path, F_OK) ? CREATE : OPEN, path); \
        return real(path, flags, mode);                                          \
    }
OPENING(open)
OPENING(open64)

#define WRITING(name, ...)                                                       \
    if (is_armed() && is_open_on_ours(file) && fails(WRITE)) {                    \
        int error = errno;                                                       \
        size_t part = passing(length);                                           \
        errno = error;                                                           \
        return part ? real(file, content, part, ##__VA_ARGS__) : -1;             \
    }                                                                            \
    return real(file, content, length, ##__VA_ARGS__)

ssize_t write(int file, const void *content, size_t length) {
    static __typeof__(&write) real;
    if (!real) real = REAL(write);
    WRITING(write);
}
ssize_t pwrite(int file, const void *content, size_t length, off_t at) {
    static __typeof__(&pwrite) real;
    if (!real) real = REAL(pwrite);
    WRITING(pwrite, at);
}
ssize_t pwrite64(int file, const void *content, size_t length, off64_t at) {
    static __typeof__(&pwrite64) real;
    if (!real) real = REAL(pwrite64);
    WRITING(pwrite64, at);
}

/* name, what it does, the file or path it does it to, its parameters and their names */
#define FAILING(result, name, KIND, where, parameters, names)                    \
    result name parameters {                                                     \
        static __typeof__(&name) real;                                           \
        if (!real) real = REAL(name);                                            \
        KIND(where);                                                             \
        return real names;                                                       \
    }
#define WRITES(file) FILE_FAULT(WRITE, file)
#define SYNCS(file) FILE_FAULT(SYNC, file)
#define RESIZES(file) FILE_FAULT(RESIZE, file)
#define READS(file) FILE_FAULT(READ, file)
#define RENAMES(path) PATH_FAULT(RENAME, path)
#define MAKES(path) PATH_FAULT(MKDIR, path)
#define UNLINKS(path) PATH_FAULT(UNLINK, path)

FAILING(ssize_t, writev, WRITES, file, (int file, const struct iovec *parts, int count), (file, parts, count))
FAILING(int, fsync, SYNCS, file, (int file), (file))
FAILING(int, fdatasync, SYNCS, file, (int file), (file))
FAILING(int, ftruncate, RESIZES, file, (int file, off_t length), (file, length))
FAILING(int, ftruncate64, RESIZES, file, (int file, off64_t length), (file, length))
FAILING(ssize_t, read, READS, file, (int file, void *content, size_t length), (file, content, length))
FAILING(ssize_t, pread, READS, file, (int file, void *content, size_t length, off_t at), (file, content, length, at))
FAILING(ssize_t, pread64, READS, file, (int file, void *content, size_t length, off64_t at), (file, content, length, at))
FAILING(int, rename, RENAMES, to, (const char *from, const char *to), (from, to))
FAILING(int, link, RENAMES, to, (const char *from, const char *to), (from, to))
FAILING(int, linkat, RENAMES, to, (int at, const char *from, int at_to, const char *to, int flags), (at, from, at_to, to, flags))
FAILING(int, mkdir, MAKES, path, (const char *path, mode_t mode), (path, mode))
FAILING(int, unlink, UNLINKS, path, (const char *path), (path))

/* A file layer between the server and the system, preloaded, that notes how to take back what
 * was written and not synced, so that a test can do after `kill -9` what a power failure does.
 *
 * For every change to a file below DRAMATIS_DROP_DIR it appends a record to the journal
 * DRAMATIS_DROP_JOURNAL before the change is made: the sectors as they were and the file's
 * length, or the name as it was. A sync that returned appends that what came before it began is
 * settled. A kill may end the journal in half a record: the change it was for was not made.
 *
 * Files are told apart by inode numbers, so a file that loses its last name is linked into
 * DRAMATIS_DROP_SAVED first and its number is not used again. The state of a descriptor is
 * asked of the system each time: nothing is remembered here but a counter.
 *
 * With DRAMATIS_DROP_LIE set, syncs return at once and settle nothing: a disk that lies, or a
 * server that does not sync. DRAMATIS_DROP_SYNC_US makes each sync take so much longer, so that
 * more kills find something that is not synced.
 *
 * What is not modelled ends the process with a sentence: shared writable maps, O_SYNC, links. A
 * library that asks the kernel without libc is not seen. tests/support/unsynced.rs reads the
 * journal. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define SECTOR 512
#define MAGIC 0x444e5553u

enum kind { WRITE = 1, SYNC = 2, CREATE = 3, RENAME = 4, UNLINK = 5, SYNC_NAMES = 6 };

/* All of it little-endian as it lies; then the names, then the bytes. */
struct record {
    uint32_t magic, kind;
    uint64_t sequence, inode;
    uint64_t offset, length, size;      /* WRITE: what is changed, of how long a file */
    uint64_t settled;                   /* SYNC, SYNC_NAMES: what came before this */
    uint32_t name_length, other_length; /* of names below the directory */
    uint64_t bytes_length;              /* the sectors as they were, from a sector's start */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static char dir[PATH_MAX];
static const char *saved;
static int journal = -1, lie;
static useconds_t sync_us;
static uint64_t sequence;

#define REAL(result, name, ...) static result (*real_##name)(__VA_ARGS__)
REAL(int, openat, int, const char *, int, ...);
REAL(ssize_t, write, int, const void *, size_t);
REAL(ssize_t, writev, int, const struct iovec *, int);
REAL(ssize_t, pwrite, int, const void *, size_t, off_t);
REAL(ssize_t, pwritev, int, const struct iovec *, int, off_t);
REAL(int, ftruncate, int, off_t);
REAL(int, fallocate, int, int, off_t, off_t);
REAL(ssize_t, copy_file_range, int, off64_t *, int, off64_t *, size_t, unsigned);
REAL(ssize_t, sendfile, int, int, off_t *, size_t);
REAL(int, fsync, int);
REAL(int, fdatasync, int);
REAL(int, rename, const char *, const char *);
REAL(int, unlink, const char *);
REAL(void *, mmap, void *, size_t, int, int, int, off_t);

static void end(const char *what) {
    fprintf(stderr, "drop_unsynced: %s\n", what);
    abort();
}

static void begin(void) {
#define FIND(name) if (!(real_##name = dlsym(RTLD_NEXT, #name))) end("no " #name)
    FIND(openat); FIND(write); FIND(writev); FIND(pwrite); FIND(pwritev); FIND(ftruncate);
    FIND(fallocate); FIND(fsync); FIND(fdatasync); FIND(rename); FIND(unlink); FIND(mmap);
    FIND(copy_file_range); FIND(sendfile);
    const char *given = getenv("DRAMATIS_DROP_DIR"), *path = getenv("DRAMATIS_DROP_JOURNAL");
    saved = getenv("DRAMATIS_DROP_SAVED");
    if (!given || !path || !saved || given[0] != '/') end("DRAMATIS_DROP_DIR, _JOURNAL, _SAVED are needed");
    if (snprintf(dir, sizeof dir, "%s/", given) >= (int)sizeof dir) end("DRAMATIS_DROP_DIR is too long");
    lie = getenv("DRAMATIS_DROP_LIE") != NULL;
    if (getenv("DRAMATIS_DROP_SYNC_US")) sync_us = atoi(getenv("DRAMATIS_DROP_SYNC_US"));
    journal = real_openat(AT_FDCWD, path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
    if (journal < 0) end("the journal cannot be made");
}

static void ready(void) { pthread_once(&once, begin); }

/* The name below the directory, "" for the directory itself, NULL for what is elsewhere. */
static const char *below(const char *path) {
    size_t length = strlen(dir);
    if (strncmp(path, dir, length - 1) != 0) return NULL;
    if (path[length - 1] == 0) return "";
    return path[length - 1] == '/' ? path + length : NULL;
}

static const char *below_at(int at, const char *path, char *whole) {
    if (path[0] == '/') {
        if (snprintf(whole, PATH_MAX, "%s", path) >= PATH_MAX) return NULL;
    } else {
        char base[PATH_MAX];
        if (at == AT_FDCWD) {
            if (!getcwd(base, sizeof base)) return NULL;
        } else {
            char link[64];
            snprintf(link, sizeof link, "/proc/self/fd/%d", at);
            ssize_t length = readlink(link, base, sizeof base - 1);
            if (length < 0) return NULL;
            base[length] = 0;
        }
        if (strlen(base) + strlen(path) + 2 > PATH_MAX) return NULL;
        strcpy(whole, base);
        strcat(whole, "/");
        strcat(whole, path);
    }
    return below(whole);
}

/* The name that a descriptor was opened by, as it is now. */
static const char *below_fd(int fd, char *whole) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, whole, PATH_MAX - 1);
    if (length < 0) return NULL;
    whole[length] = 0;
    return below(whole);
}

/* Whole or not at all, but for a kill; called with the lock held. */
static uint64_t note(struct record *record, const char *name, const char *other, const void *bytes) {
    record->magic = MAGIC;
    record->sequence = ++sequence;
    record->name_length = name ? strlen(name) : 0;
    record->other_length = other ? strlen(other) : 0;
    size_t length = sizeof *record + record->name_length + record->other_length + record->bytes_length;
    char *whole = malloc(length), *at = whole;
    if (!whole) end("no memory");
    memcpy(at, record, sizeof *record);
    at += sizeof *record;
    if (name) memcpy(at, name, record->name_length);
    at += record->name_length;
    if (other) memcpy(at, other, record->other_length);
    at += record->other_length;
    if (record->bytes_length) memcpy(at, bytes, record->bytes_length);
    for (size_t done = 0; done < length;) {
        ssize_t wrote = real_write(journal, whole + done, length - done);
        if (wrote < 0 && errno != EINTR) end("the journal cannot be written");
        if (wrote > 0) done += wrote;
    }
    free(whole);
    return sequence;
}

static struct stat status_of(int fd) {
    struct stat status;
    if (fstat(fd, &status) != 0) end("fstat failed");
    return status;
}

/* Notes the sectors of [offset, offset + length) as they are; called with the lock held. */
static void note_sectors(int fd, const char *name, uint64_t offset, uint64_t length) {
    struct stat status = status_of(fd);
    if (!S_ISREG(status.st_mode)) end("a write to what is no file");
    uint64_t from = offset / SECTOR * SECTOR, to = (offset + length + SECTOR - 1) / SECTOR * SECTOR;
    if (to > (uint64_t)status.st_size) to = status.st_size;
    uint64_t count = to > from ? to - from : 0;
    char *bytes = malloc(count + 1);
    if (!bytes) end("no memory");
    /* Through a descriptor of its own: this one may be open for writing alone. */
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int reading = count ? real_openat(AT_FDCWD, link, O_RDONLY | O_CLOEXEC) : -1;
    if (count && (reading < 0 || pread(reading, bytes, count, from) != (ssize_t)count)) end("cannot read before a write");
    if (reading >= 0) close(reading);
    struct record record = { .kind = WRITE, .inode = status.st_ino, .offset = offset, .length = length,
                             .size = status.st_size, .bytes_length = count };
    note(&record, name, NULL, bytes);
    free(bytes);
}

static uint64_t end_of(int fd) {
    if (fcntl(fd, F_GETFL) & O_APPEND) return status_of(fd).st_size;
    off_t at = lseek(fd, 0, SEEK_CUR);
    if (at < 0) end("lseek failed");
    return at;
}

static size_t sum(const struct iovec *parts, int count) {
    size_t length = 0;
    for (int part = 0; part < count; part++) length += parts[part].iov_len;
    return length;
}

/* Notes, then changes, with no other change between. */
#define CHANGE(type, fd, offset, length, call)                                                  \
    ready();                                                                                    \
    char whole[PATH_MAX];                                                                       \
    const char *name = below_fd(fd, whole);                                                     \
    if (!name) return call;                                                                     \
    pthread_mutex_lock(&lock);                                                                  \
    note_sectors(fd, name, offset, length);                                                     \
    type result = call;                                                                         \
    int error = errno;                                                                          \
    pthread_mutex_unlock(&lock);                                                                \
    errno = error;                                                                              \
    return result

ssize_t write(int fd, const void *bytes, size_t length) {
    CHANGE(ssize_t, fd, end_of(fd), length, real_write(fd, bytes, length));
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    CHANGE(ssize_t, fd, end_of(fd), sum(parts, count), real_writev(fd, parts, count));
}
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) {
    CHANGE(ssize_t, fd, at, length, real_pwrite(fd, bytes, length, at));
}
ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t at) { return pwrite(fd, bytes, length, at); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) {
    CHANGE(ssize_t, fd, at, sum(parts, count), real_pwritev(fd, parts, count, at));
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t at) { return pwritev(fd, parts, count, at); }

ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t length, unsigned flags) {
    CHANGE(ssize_t, to, to_at ? (uint64_t)*to_at : end_of(to), length,
           real_copy_file_range(from, from_at, to, to_at, length, flags));
}
ssize_t sendfile(int to, int from, off_t *at, size_t length) {
    CHANGE(ssize_t, to, end_of(to), length, real_sendfile(to, from, at, length));
}
ssize_t sendfile64(int to, int from, off64_t *at, size_t length) { return sendfile(to, from, at, length); }

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }
static uint64_t apart(uint64_t a, uint64_t b) { return a < b ? b - a : a - b; }

int ftruncate(int fd, off_t size) {
    CHANGE(int, fd, least(size, status_of(fd).st_size), apart(size, status_of(fd).st_size), real_ftruncate(fd, size));
}
int ftruncate64(int fd, off_t size) { return ftruncate(fd, size); }
int fallocate(int fd, int mode, off_t at, off_t length) {
    CHANGE(int, fd, at, length, real_fallocate(fd, mode, at, length));
}
int fallocate64(int fd, int mode, off_t at, off_t length) { return fallocate(fd, mode, at, length); }
int posix_fallocate(int fd, off_t at, off_t length) { return fallocate(fd, 0, at, length) ? errno : 0; }
int posix_fallocate64(int fd, off_t at, off_t length) { return posix_fallocate(fd, at, length); }

/* Settles what was changed before the sync began, once it has returned. */
static int sync_with(int fd, int (*real)(int)) {
    char whole[PATH_MAX];
    const char *name = below_fd(fd, whole);
    if (!name) return real(fd);
    if (lie) return 0;
    struct stat status = status_of(fd);
    pthread_mutex_lock(&lock);
    struct record record = { .kind = S_ISDIR(status.st_mode) ? SYNC_NAMES : SYNC, .inode = status.st_ino,
                             .settled = sequence };
    pthread_mutex_unlock(&lock);
    usleep(sync_us);
    int result = real(fd);
    if (result != 0) return result;
    pthread_mutex_lock(&lock);
    note(&record, name, NULL, NULL);
    pthread_mutex_unlock(&lock);
    return 0;
}
int fsync(int fd) { ready(); return sync_with(fd, real_fsync); }
int fdatasync(int fd) { ready(); return sync_with(fd, real_fdatasync); }

int openat(int at, const char *path, int flags, ...) {
    ready();
    mode_t mode = 0;
    if (flags & (O_CREAT | O_TMPFILE)) {
        va_list rest;
        va_start(rest, flags);
        mode = va_arg(rest, mode_t);
        va_end(rest);
    }
    char whole[PATH_MAX];
    const char *name = below_at(at, path, whole);
    int writing = (flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC));
    if (!name || !writing) return real_openat(at, path, flags, mode);
    if ((flags & (O_DSYNC | O_DIRECT)) || (flags & O_TMPFILE) == O_TMPFILE) end("O_SYNC, O_DIRECT, O_TMPFILE are not modelled");
    pthread_mutex_lock(&lock);
    struct stat status;
    int there = stat(whole, &status) == 0;
    if (!there && (flags & O_CREAT)) {
        struct record record = { .kind = CREATE };
        note(&record, name, NULL, NULL);
    }
    int cut = there && (flags & O_TRUNC) && status.st_size > 0;
    if (cut && (flags & O_EXCL)) cut = 0;
    if (cut) {
        int old = real_openat(AT_FDCWD, whole, O_RDONLY | O_CLOEXEC);
        if (old < 0) end("cannot read before O_TRUNC");
        note_sectors(old, name, 0, status.st_size);
        close(old);
    }
    int fd = real_openat(at, path, flags, mode);
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return fd;
}
int openat64(int at, const char *path, int flags, ...) __attribute__((alias("openat")));

#define OPEN(name)                                                                              \
    int name(const char *path, int flags, ...) {                                                \
        va_list rest;                                                                           \
        va_start(rest, flags);                                                                  \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                 \
        va_end(rest);                                                                           \
        return openat(AT_FDCWD, path, flags, mode);                                             \
    }
OPEN(open)
OPEN(open64)
int creat(const char *path, mode_t mode) { return openat(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

/* Keeps the file that is about to lose this name; its number, or 0 if there is none. */
static uint64_t save(const char *path) {
    struct stat status;
    if (lstat(path, &status) != 0) return 0;
    char kept[PATH_MAX];
    if (snprintf(kept, sizeof kept, "%s/%ju", saved, (uintmax_t)status.st_ino) >= PATH_MAX) end("a long path");
    if (linkat(AT_FDCWD, path, AT_FDCWD, kept, 0) != 0 && errno != EEXIST) end("a file cannot be kept");
    return status.st_ino;
}

int rename(const char *from, const char *to) {
    ready();
    char whole_from[PATH_MAX], whole_to[PATH_MAX];
    const char *name = below_at(AT_FDCWD, from, whole_from), *other = below_at(AT_FDCWD, to, whole_to);
    if (!name && !other) return real_rename(from, to);
    if (!name || !other) end("a rename into or out of the directory is not modelled");
    pthread_mutex_lock(&lock);
    struct stat status;
    if (lstat(whole_from, &status) == 0) {
        struct record record = { .kind = RENAME, .inode = status.st_ino, .offset = save(whole_to) };
        note(&record, name, other, NULL);
    }
    int result = real_rename(from, to), error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int unlink(const char *path) {
    ready();
    char whole[PATH_MAX];
    const char *name = below_at(AT_FDCWD, path, whole);
    if (!name) return real_unlink(path);
    pthread_mutex_lock(&lock);
    struct record record = { .kind = UNLINK, .inode = save(whole) };
    if (record.inode) note(&record, name, NULL, NULL);
    int result = real_unlink(path), error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    ready();
    char whole[PATH_MAX];
    if (fd >= 0 && (flags & MAP_SHARED) && (protection & PROT_WRITE) && below_fd(fd, whole)) end("shared writable maps are not modelled");
    return real_mmap(address, length, protection, flags, fd, offset);
}
void *mmap64(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    return mmap(address, length, protection, flags, fd, offset);
}

#define REFUSE_FD(type, name, fd, parameters, arguments)                                        \
    type name parameters {                                                                      \
        ready();                                                                                \
        char whole[PATH_MAX];                                                                   \
        if (below_fd(fd, whole)) end(#name " is not modelled");                                 \
        type (*real) parameters = dlsym(RTLD_NEXT, #name);                                      \
        return real arguments;                                                                  \
    }
#define REFUSE_PATH(name, path, at, parameters, arguments)                                      \
    int name parameters {                                                                       \
        ready();                                                                                \
        char whole[PATH_MAX];                                                                   \
        if (below_at(at, path, whole)) end(#name " is not modelled");                           \
        int (*real) parameters = dlsym(RTLD_NEXT, #name);                                       \
        return real arguments;                                                                  \
    }
REFUSE_FD(ssize_t, splice, to, (int from, off64_t *from_at, int to, off64_t *to_at, size_t length, unsigned flags), (from, from_at, to, to_at, length, flags))
REFUSE_FD(ssize_t, pwritev2, fd, (int fd, const struct iovec *parts, int count, off_t at, int flags), (fd, parts, count, at, flags))
REFUSE_PATH(truncate, path, AT_FDCWD, (const char *path, off_t size), (path, size))
REFUSE_PATH(truncate64, path, AT_FDCWD, (const char *path, off64_t size), (path, size))
REFUSE_PATH(link, to, AT_FDCWD, (const char *from, const char *to), (from, to))
REFUSE_PATH(linkat, to, to_at, (int from_at, const char *from, int to_at, const char *to, int flags), (from_at, from, to_at, to, flags))
REFUSE_PATH(renameat, to, to_at, (int from_at, const char *from, int to_at, const char *to), (from_at, from, to_at, to))
REFUSE_PATH(renameat2, to, to_at, (int from_at, const char *from, int to_at, const char *to, unsigned flags), (from_at, from, to_at, to, flags))
REFUSE_PATH(unlinkat, path, at, (int at, const char *path, int flags), (at, path, flags))
REFUSE_PATH(symlink, to, AT_FDCWD, (const char *from, const char *to), (from, to))

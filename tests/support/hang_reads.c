/* A file layer between the server and the system, preloaded, that makes a disk hang: while the file
 * DRAMATIS_HANG_WHEN is there, opening a segment below DRAMATIS_HANG_DIR does not return. That it
 * does not is told by the file DRAMATIS_HANG_TOLD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int (*opener)(const char *, int, ...);

static int hangs(const char *path) {
    const char *dir = getenv("DRAMATIS_HANG_DIR"), *when = getenv("DRAMATIS_HANG_WHEN");
    return dir && when && !strncmp(path, dir, strlen(dir)) && strstr(path, ".segment") && !access(when, F_OK);
}

static int open_or_hang(const char *name, const char *path, int flags, mode_t mode) {
    opener open_really = (opener)dlsym(RTLD_NEXT, name);
    if (hangs(path)) {
        open_really(getenv("DRAMATIS_HANG_TOLD"), O_CREAT | O_WRONLY, 0600);
        for (;;) pause();
    }
    return open_really(path, flags, mode);
}

#define OPENS(name)                                         \
    int name(const char *path, int flags, ...) {            \
        va_list rest;                                       \
        va_start(rest, flags);                              \
        mode_t mode = (mode_t)va_arg(rest, int);            \
        va_end(rest);                                       \
        return open_or_hang(#name, path, flags, mode);      \
    }

OPENS(open)
OPENS(open64)

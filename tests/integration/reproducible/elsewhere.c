// Lets a program believe that it runs on a host named elsewhere, 400 days later: LD_PRELOAD it. Every way of asking for the
// host's name or the time of day goes through here.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <sys/time.h>
#include <sys/utsname.h>
#include <time.h>

#define LATER (400L * 24 * 3600)

static const char host[] = "elsewhere";

int clock_gettime(clockid_t clock, struct timespec * now) {
    int (*original)(clockid_t, struct timespec *) = (int (*)(clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime");
    int result = original(clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        now->tv_sec += LATER;
    }
    return result;
}

int gettimeofday(struct timeval * restrict now, void * restrict zone) {
    (void) zone;
    struct timespec precise;
    int result = clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return result;
}

time_t time(time_t * now) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (now) {
        *now = precise.tv_sec;
    }
    return precise.tv_sec;
}

int uname(struct utsname * system) {
    int (*original)(struct utsname *) = (int (*)(struct utsname *)) dlsym(RTLD_NEXT, "uname");
    int result = original(system);
    if (result == 0) {
        strcpy(system->nodename, host);
    }
    return result;
}

int gethostname(char * name, size_t size) {
    if (size < sizeof host) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(name, host);
    return 0;
}

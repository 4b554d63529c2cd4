#pragma once

// How a thread waits at a barrier of ggml, for ggml-cpu.c.
//
// Decoding a token meets some 250 barriers a few microseconds apart, much less than it takes to wake a thread. With
// OpenMP's barrier one either lets waiting threads sleep (OMP_WAIT_POLICY=passive), and each wake-up costs more than
// the work between two barriers; or they spin for as long as OpenMP likes, and take the processor from the threads that
// they wait for as soon as the machine has other work. Here a thread polls before it sleeps, and one that polled in
// vain twice tries it at two of 64 barriers only, until it succeeds. Results are the same bits.

#include <stdatomic.h>

#if GGML_XEON_WAIT && defined(__gnu_linux__)

#include <limits.h>
#include <linux/futex.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

#define GGML_XEON_POLL_MIN 16
#define GGML_XEON_POLL_MAX 2048 // rounds: 20 to 100 microseconds

static bool ggml_xeon_poll(atomic_int * passed, int n_passed) {
    static _Thread_local unsigned int n_in_vain = 0;

    const int n_rounds = n_in_vain % 64 < 2 ? GGML_XEON_POLL_MAX : GGML_XEON_POLL_MIN;
    for (int i = 0; i < n_rounds; i++) {
        if (atomic_load_explicit(passed, memory_order_acquire) != n_passed) {
            n_in_vain = 0;
            return true;
        }
        ggml_thread_cpu_relax();
    }
    n_in_vain++;
    return false;
}

// Wait until passed is no longer n_passed; asleep counts the threads that wait in the kernel, or are about to.
static void ggml_xeon_wait(atomic_int * passed, int n_passed, atomic_int * asleep) {
    if (ggml_xeon_poll(passed, n_passed)) {
        return;
    }
    // Either the kernel sees that passed has changed, or who changes it sees that somebody is asleep.
    atomic_fetch_add_explicit(asleep, 1, memory_order_seq_cst);
    while (atomic_load_explicit(passed, memory_order_seq_cst) == n_passed) {
        syscall(SYS_futex, passed, FUTEX_WAIT_PRIVATE, n_passed, NULL, NULL, 0);
    }
    atomic_fetch_sub_explicit(asleep, 1, memory_order_relaxed);
}

// Wake those that sleep, after passed has changed.
static void ggml_xeon_wake(atomic_int * passed, atomic_int * asleep) {
    if (atomic_load_explicit(asleep, memory_order_seq_cst) > 0) {
        syscall(SYS_futex, passed, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
    }
}

#else

static void ggml_xeon_wait(atomic_int * passed, int n_passed, atomic_int * asleep) {
    (void) asleep;
    while (atomic_load_explicit(passed, memory_order_relaxed) == n_passed) {
        ggml_thread_cpu_relax();
    }
}

static void ggml_xeon_wake(atomic_int * passed, atomic_int * asleep) {
    (void) passed;
    (void) asleep;
}

#endif

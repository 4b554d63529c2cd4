#pragma once

// A decoded token reads all weights from end to end. With pages of 4 KiB the processor looks up 26,000 addresses for
// them, which takes a good part of the time once unpacking takes little. It is advice only: where transparent huge
// pages are off, nothing changes. A buffer may take up to 2 MiB more.

#include <stddef.h>

#if GGML_XEON_HUGEPAGES && defined(__linux__)

#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

// Ask for huge pages for a buffer of 8 MiB or more.
static inline void ggml_xeon_advise_huge_pages(void * buffer, size_t size) {
    if (size < (size_t) 8 * 1024 * 1024) {
        return;
    }
    const uintptr_t page = (uintptr_t) sysconf(_SC_PAGESIZE);
    const uintptr_t begin = ((uintptr_t) buffer + page - 1) & ~(page - 1);
    const uintptr_t end = ((uintptr_t) buffer + size) & ~(page - 1);
    madvise((void *) begin, end - begin, MADV_HUGEPAGE);
}

#else

static inline void ggml_xeon_advise_huge_pages(void * buffer, size_t size) {
    (void) buffer;
    (void) size;
}

#endif

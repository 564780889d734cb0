/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Make malloc and the start of threads fail.
 *
 * A program that uses this is linked with --wrap for each function
 * __wrap_ in no-memory.c, so that the calls of the library and of the
 * program go there; the calls of GLib and of the C library's own do not.
 * The functions of GLib that end the program when there is no memory end
 * it there too.
 */

#ifndef DMIO_NO_MEMORY_H
#define DMIO_NO_MEMORY_H

#include <stdbool.h>

/* From now on only the next N allocations work. */
extern void no_memory_after (int n);
extern void memory_again (void);

extern void set_no_threads (bool value);

#endif /* DMIO_NO_MEMORY_H */

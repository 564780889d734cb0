/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* The switches are atomic. */

#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <stddef.h>

#include <glib.h>

#include "no-memory.h"

static bool no_memory;
static int allocations_left;
static bool no_threads;

void
no_memory_after (int n)
{
  __atomic_store_n (&allocations_left, n, __ATOMIC_SEQ_CST);
  __atomic_store_n (&no_memory, true, __ATOMIC_SEQ_CST);
}

void
memory_again (void)
{
  __atomic_store_n (&no_memory, false, __ATOMIC_SEQ_CST);
}

void
set_no_threads (bool value)
{
  __atomic_store_n (&no_threads, value, __ATOMIC_SEQ_CST);
}

static bool
allocation_fails (void)
{
  return __atomic_load_n (&no_memory, __ATOMIC_SEQ_CST) &&
    __atomic_fetch_sub (&allocations_left, 1, __ATOMIC_SEQ_CST) <= 0;
}

/* A function that returns NULL if it fails. */
#define WRAP(NAME, PARAMS, ARGS)                                        \
  extern void *__real_##NAME PARAMS;                                    \
  extern void *__wrap_##NAME PARAMS;                                    \
  void *                                                                \
  __wrap_##NAME PARAMS                                                  \
  {                                                                     \
    return allocation_fails () ? NULL : __real_##NAME ARGS;             \
  }

/* One that ends the program. */
#define WRAP_ABORT(NAME, PARAMS, ARGS)                                  \
  extern void *__real_##NAME PARAMS;                                    \
  extern void *__wrap_##NAME PARAMS;                                    \
  void *                                                                \
  __wrap_##NAME PARAMS                                                  \
  {                                                                     \
    if (__atomic_load_n (&no_memory, __ATOMIC_SEQ_CST))                                               \
      g_error ("%s is called where it must not be", #NAME);             \
    return __real_##NAME ARGS;                                          \
  }

WRAP (malloc, (size_t n), (n))
WRAP (calloc, (size_t n, size_t m), (n, m))
WRAP (realloc, (void *p, size_t n), (p, n))
WRAP (reallocarray, (void *p, size_t n, size_t m), (p, n, m))
WRAP (aligned_alloc, (size_t align, size_t n), (align, n))
WRAP (strdup, (const char *s), (s))
WRAP (g_try_malloc, (gsize n), (n))
WRAP (g_try_malloc0, (gsize n), (n))
WRAP (g_try_malloc_n, (gsize n, gsize m), (n, m))
WRAP (g_try_malloc0_n, (gsize n, gsize m), (n, m))
WRAP (g_try_realloc, (gpointer p, gsize n), (p, n))
WRAP (g_try_realloc_n, (gpointer p, gsize n, gsize m), (p, n, m))
WRAP_ABORT (g_malloc, (gsize n), (n))
WRAP_ABORT (g_malloc0, (gsize n), (n))
WRAP_ABORT (g_malloc_n, (gsize n, gsize m), (n, m))
WRAP_ABORT (g_malloc0_n, (gsize n, gsize m), (n, m))
WRAP_ABORT (g_realloc, (gpointer p, gsize n), (p, n))
WRAP_ABORT (g_realloc_n, (gpointer p, gsize n, gsize m), (p, n, m))
WRAP_ABORT (g_strdup, (const gchar *s), (s))

extern int __real_posix_memalign (void **p, size_t align, size_t n);
extern int __wrap_posix_memalign (void **p, size_t align, size_t n);
int
__wrap_posix_memalign (void **p, size_t align, size_t n)
{
  return allocation_fails () ? ENOMEM : __real_posix_memalign (p, align, n);
}

extern int __real_pthread_create (pthread_t *thread,
                                  const pthread_attr_t *attr,
                                  void *(*start) (void *), void *arg);
extern int __wrap_pthread_create (pthread_t *thread,
                                  const pthread_attr_t *attr,
                                  void *(*start) (void *), void *arg);
int
__wrap_pthread_create (pthread_t *thread, const pthread_attr_t *attr,
                       void *(*start) (void *), void *arg)
{
  return __atomic_load_n (&no_threads, __ATOMIC_SEQ_CST) ? EAGAIN :
    __real_pthread_create (thread, attr, start, arg);
}

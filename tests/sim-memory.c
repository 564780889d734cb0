/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Memory of a history, from one arena: what a power cut leaves behind
 * is gone with the next history.  Blocks that are freed go to a list for
 * their size, a power of two.  What GLib itself allocates is its own, and
 * told apart by its address.
 *
 * With AddressSanitizer there is no arena, so that it sees each block.
 */

#include <config.h>

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <glib.h>

#include "sim.h"

#define ARENA (UINT64_C (1) << 30)
#define SIZES 40

#if defined __SANITIZE_ADDRESS__
#define USE_ARENA 0
#else
#define USE_ARENA 1
#endif

struct block {
  union {
    unsigned int size;          /* log2 */
    struct block *next;
  };
  uint64_t align;
};

void *sim_real_malloc (gsize) __asm__ ("__real_g_malloc");
void sim_real_free (gpointer) __asm__ ("__real_g_free");

static char *arena;
static size_t used;
static struct block *freed[SIZES];

void
sim_memory_reset (void)
{
  if (arena == NULL)
    arena = mmap (NULL, ARENA, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  /* What does not come from here is to be quick, too. */
  mallopt (M_MMAP_THRESHOLD, 1 << 30);
  mallopt (M_TRIM_THRESHOLD, 1 << 30);
  if (arena == MAP_FAILED) {
    perror ("no memory for the simulator");
    exit (1);
  }
  used = 0;
  memset (freed, 0, sizeof freed);
}

static void *
get (gsize n)
{
  unsigned int size = 64 - __builtin_clzll (n + sizeof (struct block) + 30);
  struct block *block = freed[size];

  if (!USE_ARENA || arena == NULL)
    return sim_real_malloc (n);
  if (block != NULL)
    freed[size] = block->next;
  else {
    if (used + (UINT64_C (1) << size) > ARENA)
      sim_fail ("a history takes more than 1 GiB of memory");
    block = (struct block *) (arena + used);
    used += UINT64_C (1) << size;
  }
  block->size = size;
  return block + 1;
}

void *sim_malloc (gsize) __asm__ ("__wrap_g_malloc");
void *
sim_malloc (gsize n)
{
  return n == 0 ? NULL : get (n);
}

void *sim_malloc0 (gsize) __asm__ ("__wrap_g_malloc0");
void *
sim_malloc0 (gsize n)
{
  return n == 0 ? NULL : memset (get (n), 0, n);
}

void *sim_malloc_n (gsize, gsize) __asm__ ("__wrap_g_malloc_n");
void *
sim_malloc_n (gsize n, gsize size)
{
  return sim_malloc (n * size);
}

void *sim_malloc0_n (gsize, gsize) __asm__ ("__wrap_g_malloc0_n");
void *
sim_malloc0_n (gsize n, gsize size)
{
  return sim_malloc0 (n * size);
}

void *sim_try_malloc (gsize) __asm__ ("__wrap_g_try_malloc");
void *
sim_try_malloc (gsize n)
{
  return sim_malloc (n);
}

void *sim_try_malloc0 (gsize) __asm__ ("__wrap_g_try_malloc0");
void *
sim_try_malloc0 (gsize n)
{
  return sim_malloc0 (n);
}

void *sim_try_malloc_n (gsize, gsize) __asm__ ("__wrap_g_try_malloc_n");
void *
sim_try_malloc_n (gsize n, gsize size)
{
  return sim_malloc (n * size);
}

void *sim_try_malloc0_n (gsize, gsize) __asm__ ("__wrap_g_try_malloc0_n");
void *
sim_try_malloc0_n (gsize n, gsize size)
{
  return sim_malloc0 (n * size);
}

gchar *sim_strdup (const gchar *) __asm__ ("__wrap_g_strdup");
gchar *
sim_strdup (const gchar *s)
{
  return s == NULL ? NULL : memcpy (sim_malloc (strlen (s) + 1), s,
                                    strlen (s) + 1);
}

void sim_free (gpointer) __asm__ ("__wrap_g_free");
void
sim_free (gpointer p)
{
  struct block *block = p;
  unsigned int size;

  if (!USE_ARENA || arena == NULL || (char *) p < arena ||
      (char *) p >= arena + ARENA) {
    sim_real_free (p);
    return;
  }
  block--;
  size = block->size;
  block->next = freed[size];
  freed[size] = block;
}

/*----------------------------------------------------------------------
 * Buffers of the log
 */

void sim_real_libc_free (void *) __asm__ ("__real_free");
int sim_real_posix_memalign (void **, size_t, size_t)
  __asm__ ("__real_posix_memalign");

int sim_posix_memalign (void **, size_t, size_t)
  __asm__ ("__wrap_posix_memalign");
int
sim_posix_memalign (void **p, size_t align, size_t n)
{
  uintptr_t address;

  if (!USE_ARENA || arena == NULL)
    return sim_real_posix_memalign (p, align, n);
  address = (uintptr_t) get (n + align);
  *p = (void *) ((address + align - 1) / align * align);
  return 0;
}

/* The few that are aligned are not used again in this history. */
void sim_libc_free (void *) __asm__ ("__wrap_free");
void
sim_libc_free (void *p)
{
  if (!USE_ARENA || arena == NULL || (char *) p < arena ||
      (char *) p >= arena + ARENA)
    sim_real_libc_free (p);
}

/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* As in the kernel, all elements come from the same allocator, so one
 * that is freed either refills the reserve or goes back to malloc; no
 * element remembers where it came from.
 *
 * pool->lock owns the list of spares and the counters.  It is a leaf:
 * no other lock is taken under it.
 *
 * The locks of the library are POSIX ones because ThreadSanitizer does
 * not see through GLib's.
 */

#include <config.h>

#include <stdlib.h>

#include "mempool.h"

/* The most elements of one reserve, which are some hundred megabytes. */
#define MAX_RESERVE 65536

struct mempool_spare {
  struct mempool_spare *next;
};

static void *
new_element (struct mempool *pool)
{
  void *p;

  return posix_memalign (&p, pool->align, pool->size) == 0 ? p : NULL;
}

/* Called with the lock held. */
static void
keep (struct mempool *pool, void *element)
{
  struct mempool_spare *spare = element;

  spare->next = pool->spares;
  pool->spares = spare;
  pool->available++;
}

/* Called with the lock held, and available > 0. */
static void *
take (struct mempool *pool)
{
  struct mempool_spare *spare = pool->spares;

  pool->spares = spare->next;
  pool->available--;
  return spare;
}

/* Give back to malloc what the reserve has too much of. */
static void
trim (struct mempool *pool)
{
  struct mempool_spare *surplus = NULL, *spare;

  pthread_mutex_lock (&pool->lock);
  while (pool->available > pool->min) {
    spare = take (pool);
    spare->next = surplus;
    surplus = spare;
  }
  pthread_mutex_unlock (&pool->lock);

  while ((spare = surplus) != NULL) {
    surplus = spare->next;
    free (spare);
  }
}

bool
mempool_grow (struct mempool *pool, unsigned int n)
{
  unsigned int i;
  void *element;
  bool fits;

  pthread_mutex_lock (&pool->lock);
  fits = n <= MAX_RESERVE - pool->min;
  if (fits)
    pool->min += n;
  pthread_mutex_unlock (&pool->lock);
  if (!fits)
    return false;

  for (i = 0; i < n; i++) {
    element = new_element (pool);
    if (element == NULL) {
      mempool_shrink (pool, n);
      return false;
    }
    pthread_mutex_lock (&pool->lock);
    keep (pool, element);
    pthread_cond_signal (&pool->freed);
    pthread_mutex_unlock (&pool->lock);
  }
  trim (pool);
  return true;
}

bool
mempool_shrink (struct mempool *pool, unsigned int n)
{
  bool enough;

  pthread_mutex_lock (&pool->lock);
  enough = pool->min >= n;
  if (enough)
    pool->min -= n;
  pthread_mutex_unlock (&pool->lock);
  trim (pool);
  return enough;
}

void *
mempool_try_alloc (struct mempool *pool)
{
  void *element = new_element (pool);

  if (element != NULL)
    return element;
  pthread_mutex_lock (&pool->lock);
  if (pool->available > 0)
    element = take (pool);
  pthread_mutex_unlock (&pool->lock);
  return element;
}

void *
mempool_alloc (struct mempool *pool)
{
  void *element = new_element (pool);

  if (element != NULL)
    return element;
  pthread_mutex_lock (&pool->lock);
  while (pool->available == 0)
    pthread_cond_wait (&pool->freed, &pool->lock);
  element = take (pool);
  pthread_mutex_unlock (&pool->lock);
  return element;
}

void
mempool_free (struct mempool *pool, void *element)
{
  if (element == NULL)
    return;
  pthread_mutex_lock (&pool->lock);
  if (pool->available < pool->min) {
    keep (pool, element);
    element = NULL;
    pthread_cond_signal (&pool->freed);
  }
  pthread_mutex_unlock (&pool->lock);
  free (element);
}

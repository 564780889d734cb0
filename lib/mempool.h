/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* A reserve of elements of one size for when malloc fails, after the
 * kernel's mempool.
 */

#ifndef DMIO_MEMPOOL_H
#define DMIO_MEMPOOL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

struct mempool {
  size_t size, align;           /* of an element; never change */
  pthread_mutex_t lock;         /* owns what follows; a leaf lock */
  pthread_cond_t freed;
  unsigned int min;             /* how many to keep in reserve */
  unsigned int available;       /* length of the list of spares */
  struct mempool_spare *spares;
};

#define MEMPOOL_INIT(SIZE, ALIGN)                                       \
  { .size = (SIZE), .align = (ALIGN),                                   \
    .lock = PTHREAD_MUTEX_INITIALIZER, .freed = PTHREAD_COND_INITIALIZER }

/* Reserve N more elements.  False, with nothing changed, if there is no
 * memory for them or it would be more than a sane number.
 */
extern bool mempool_grow (struct mempool *pool, unsigned int n);

/* Reserve N less.  False, with nothing changed, if there are not as
 * many.
 */
extern bool mempool_shrink (struct mempool *pool, unsigned int n);

/* An element from malloc, or else from the reserve; NULL if both are
 * exhausted.
 */
extern void *mempool_try_alloc (struct mempool *pool);

/* The same, but wait for an element to be freed.  At least one must be
 * reserved, and whoever holds one must be able to free it without
 * another.
 */
extern void *mempool_alloc (struct mempool *pool);

/* Free an element, NULL is ignored. */
extern void mempool_free (struct mempool *pool, void *element);

#endif /* DMIO_MEMPOOL_H */

/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Locks on ranges of a volume: of two that overlap, the second waits
 * until the first is released.
 */

#ifndef DMIO_RANGE_LOCK_H
#define DMIO_RANGE_LOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* A range that is locked or waits to be.  Usually on the stack of the
 * thread that holds it.
 */
struct range_lock {
  uint64_t start, end;          /* the range is [start, end) */
  unsigned int blockers;        /* earlier ranges that overlap it */
  bool passing;                 /* of range_wait: blocks nobody */
  pthread_cond_t granted;       /* blockers is 0 */
  struct range_lock *prev, *next;
};

struct range_locks {
  pthread_mutex_t lock;         /* owns the list and blockers; a leaf */
  struct range_lock *first, *last; /* in the order in which they came */
};

extern void range_locks_init (struct range_locks *locks);
extern void range_locks_fini (struct range_locks *locks);

/* Lock [start, start + length), and unlock it. */
extern void range_lock (struct range_locks *locks, struct range_lock *range,
                        uint64_t start, uint64_t length);
extern void range_unlock (struct range_locks *locks,
                          struct range_lock *range);

/* Wait until all ranges that overlap [start, start + length) and are now
 * locked, or wait to be, have been unlocked.  Nobody waits for who is
 * here.
 */
extern void range_wait (struct range_locks *locks, uint64_t start,
                        uint64_t length);

#endif /* DMIO_RANGE_LOCK_H */

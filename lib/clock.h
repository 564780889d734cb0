/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef DMIO_CLOCK_H
#define DMIO_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NSEC_PER_SEC UINT64_C (1000000000)

static inline uint64_t
clock_read (clockid_t clock)
{
  struct timespec t;

  clock_gettime (clock, &t);
  return (uint64_t) t.tv_sec * NSEC_PER_SEC + t.tv_nsec;
}

/* Nanoseconds on a clock that is never set. */
static inline uint64_t
clock_now (void)
{
  return clock_read (CLOCK_MONOTONIC);
}

/* Nanoseconds since 1970, as the times of files. */
static inline uint64_t
clock_date (void)
{
  return clock_read (CLOCK_REALTIME);
}

/* Wait until changes of files get times that are later than now.  A file gets that of the
 * kernel's last tick, which may be 10 ms ago.
 */
static inline void
clock_await_tick (void)
{
  const struct timespec pause = { .tv_nsec = NSEC_PER_SEC / 1000 };
  uint64_t before = clock_date ();
  unsigned int i;

  /* It may be set back meanwhile. */
  for (i = 0; i < 20 && clock_read (CLOCK_REALTIME_COARSE) <= before; i++)
    nanosleep (&pause, NULL);
}

#endif /* DMIO_CLOCK_H */

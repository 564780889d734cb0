/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef DMIO_CLOCK_H
#define DMIO_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NSEC_PER_SEC UINT64_C (1000000000)

/* Nanoseconds on a clock that is never set. */
static inline uint64_t
clock_now (void)
{
  struct timespec t;

  clock_gettime (CLOCK_MONOTONIC, &t);
  return (uint64_t) t.tv_sec * NSEC_PER_SEC + t.tv_nsec;
}

/* Nanoseconds since 1970, as the times of files. */
static inline uint64_t
clock_date (void)
{
  struct timespec t;

  clock_gettime (CLOCK_REALTIME, &t);
  return (uint64_t) t.tv_sec * NSEC_PER_SEC + t.tv_nsec;
}

#endif /* DMIO_CLOCK_H */

/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Where a file is known to have data.  To find the end of data can take
 * long: on tmpfs the kernel looks at each page up to there, so whoever
 * goes through a file in small steps and asks each time needs quadratic
 * time.  What is remembered here may be out of date, but only so that zeroes
 * count as data, which is never wrong.
 */

#ifndef DMIO_KNOWN_DATA_H
#define DMIO_KNOWN_DATA_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* So many threads can go through different parts. */
#define KNOWN_DATA_RUNS 4

struct known_data {
  pthread_mutex_t lock;         /* owns the rest; a leaf */
  struct { uint64_t from, end; } runs[KNOWN_DATA_RUNS];
  unsigned int next;            /* the run to be replaced */
  uint64_t forgotten;           /* how often */
};

extern void known_data_init (struct known_data *known);
extern void known_data_fini (struct known_data *known);

/* True if there is data from OFFSET to *END.  Else sets *FORGOTTEN, for
 * known_data_add; to be called before the kernel is asked.
 */
extern bool known_data_find (struct known_data *known, uint64_t offset,
                             uint64_t *end, uint64_t *forgotten);
/* There was data, unless something was forgotten meanwhile. */
extern void known_data_add (struct known_data *known, uint64_t from,
                            uint64_t end, uint64_t forgotten);
/* There may be a hole now; to be called after it was made. */
extern void known_data_forget (struct known_data *known, uint64_t from,
                               uint64_t length);

#endif /* DMIO_KNOWN_DATA_H */

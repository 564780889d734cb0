/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What asynchronous requests and their callbacks have to do on any
 * devices: C1 the callback comes exactly once, may free its context and
 * submit again, on a bounded stack; C2 the caller's lists may die; C3
 * signals, and synchronous requests in a callback; many threads.
 *
 * test-async has these cases on mocks, test-kinds on real devices.
 */

#ifndef DMIO_ASYNC_CASES_H
#define DMIO_ASYNC_CASES_H

#include "test-util.h"

#define MAX_WHERE 5

/* One context for each of many requests, which its callback frees. */
struct once {
  unsigned int rounds;
  unsigned int *calls;          /* of each round; atomic */
  sem_t sem;                    /* posted by each callback */
};

extern void once_begin (struct once *once, unsigned int rounds);
/* Submit the request of one round, whose error bits must be EXPECTED. */
extern void once_submit (struct once *once, unsigned int round,
                         const struct dm_io_request *req, unsigned int n,
                         const struct io_region *where,
                         unsigned long expected);
extern void once_wait (struct once *once);
/* When all devices are closed: there was one callback in each round. */
extern void once_end (struct once *once);

/* LENGTH requests to write DATA in all, with EXPECTED error bits: each
 * callback submits up to BRANCHES of them.
 */
extern void run_chain (const struct io_region *where, unsigned int n,
                       void *data, unsigned long expected,
                       unsigned int branches, unsigned int length);

/* All that describes a request for N pages, in memory of its own; the
 * pages live on.  Lists have the pages in reverse order.
 */
#define DYING_PAGES 20
struct dying {
  struct dm_io_request req;
  struct io_region where[MAX_WHERE];
  struct page_list pl[DYING_PAGES];
  struct bio_vec bvec[DYING_PAGES];
};

extern struct dying *new_dying (const struct io_region *where,
                                unsigned int regions,
                                enum dm_io_mem_type type,
                                struct page *pages, unsigned int n);
/* Submit it, then poison and free all of it. */
extern void submit_dying (struct dying *d, enum dm_io_op op,
                          unsigned int regions, struct done *done);

/* As many synchronous requests as it takes for many signals to come,
 * each to all of the regions, which are alike in size.
 */
extern void signal_storm (const struct io_region *where, unsigned int n);

/* The library's threads leave signals to the program: while its only
 * thread blocks one, that one stays pending.
 */
extern void signals_are_the_programs (const struct io_region *where,
                                      unsigned int n);

/* CALLBACKS requests for OUTER, each with a callback that makes
 * synchronous requests for the N regions INNER: begin, then end.  The
 * regions are alike in size; DATA is what is written.
 */
struct nested {
  struct io_region outer;
  struct io_region inner[MAX_WHERE];
  unsigned int n;
  unsigned int callbacks;
  void *data;
  unsigned int calls;           /* atomic */
  sem_t end;
};

extern void nested_begin (struct nested *nested);
extern void nested_end (struct nested *nested);

/* Many threads write and read slices of the N devices.  Each must have
 * this many blocks.
 */
#define THREADS 8
#define DEPTH 8
#define SLICE 4                 /* blocks of one request in flight */
#define SLICES_BLOCKS (THREADS * DEPTH * SLICE)

extern void many_threads (const struct io_region *where, unsigned int n,
                          unsigned int block_size, unsigned int rounds);

#endif /* DMIO_ASYNC_CASES_H */

/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Which of several legs a read is best sent to.
 *
 * All functions can be called by many threads at once.  They take no
 * lock: the figures are hints, and a choice that was made from ones that
 * were about to change is still a valid choice.
 */

#ifndef DMIO_READ_BALANCE_H
#define DMIO_READ_BALANCE_H

#include <stdbool.h>

#include "dm-io.h"

/* Sequential streams that are told apart. */
#define READ_BALANCE_STREAMS 8

struct read_balance {
  struct {
    unsigned int in_flight;     /* atomic: reads */
    uint64_t latency;           /* atomic: of reads, lately, nsec */
  } legs[DM_IO_MAX_REGIONS];
  /* atomic: where a stream will go on, and on which leg. */
  uint64_t streams[READ_BALANCE_STREAMS];
  unsigned int next_stream;     /* atomic: the one to be replaced next */
};

extern void read_balance_init (struct read_balance *balance);

/* Choose from the non-empty set LEGS, bit i being leg i, the one for a
 * read of these sectors: that of the sequential stream that the read belongs
 * to; else the one from which an answer can be expected first.
 */
extern unsigned int read_balance_choose (struct read_balance *balance,
                                         unsigned long legs,
                                         sector_t sector, sector_t count);

/* A read of the leg begins, and has ended after that time. */
extern void read_balance_begin (struct read_balance *balance,
                                unsigned int leg);
extern void read_balance_end (struct read_balance *balance, unsigned int leg,
                              bool ok, uint64_t nsec);

#endif /* DMIO_READ_BALANCE_H */

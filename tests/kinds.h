/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Real regions of every kind, for the cases of test-kinds: files through
 * the page cache and past it, NBD servers with blocks of 512 and of 4096
 * bytes, and mixtures of them, as a world with its models.
 */

#ifndef DMIO_KINDS_H
#define DMIO_KINDS_H

#include "memory-cases.h"

#define MAX_REGIONS 3
#define LONG_SECTORS (5 * 2048 + 24)
#define VERY_LONG_SECTORS (33 * 2048 + 24)

enum kind { CACHED, DIRECT, NBD, NBD_4K, NUM_KINDS };

/* What the regions of a test are. */
struct setup {
  const char *name;
  unsigned int n;
  enum kind kinds[MAX_REGIONS];
};

/* A world with such regions. */
struct kinds {
  struct world world;           /* first */
  const struct setup *setup;
  struct region *regions[MAX_REGIONS];
  unsigned char *contents;      /* of the disk last looked at */
  struct done refused;          /* must never be called */
};

static inline struct kinds *
to_kinds (struct world *w)
{
  return (struct kinds *) w;
}

/* Make the files, start the servers; before any device is open, and so
 * before there are threads.
 */
extern void kinds_begin (void);
extern void kinds_end (void);
/* The file system of the temporary files has O_DIRECT. */
extern bool kinds_have_direct (void);

/* New contents, and devices.  In the end it is checked that refused was
 * not called.
 */
extern struct kinds *kinds_open (const struct setup *setup,
                                 sector_t sectors);
extern void kinds_close (struct kinds *k);

/* Close the device, and open it with these flags. */
extern void kinds_reopen (struct world *w, unsigned int disk,
                          unsigned int flags);

/* COUNT blocks in each of as many regions as there can be, none of which
 * overlap.
 */
extern void choose_most (const struct world *w, struct io_region *where,
                         sector_t count);

/* From now on all I/O to this one fails, or for files: reads behind the
 * middle, and all else after the first failure.
 */
extern void break_disk (struct world *w, unsigned int disk);

/* All but one disk are as the model says. */
extern void check_others (struct world *w, unsigned int broken);

/* How much space its file takes. */
extern uint64_t space_of (struct world *w, unsigned int disk);

/* The cases; the last of each is all zero. */
extern const struct world_case request_cases[];
extern const struct world_case data_cases[];
extern const struct world_case very_long_cases[]; /* for one region */
extern const struct world_case callback_cases[];

#endif /* DMIO_KINDS_H */

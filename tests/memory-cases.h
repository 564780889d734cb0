/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What the memory of requests has to do on any devices: B1 page lists,
 * B2 bio vectors, B3 buffers at odd addresses, B4 each region gets all
 * data from the start, B5 regions with different starts and counts.
 *
 * Everything is compared with a model that uses memcpy: all of the
 * memory that requests point into, so that bytes beside their data are
 * guards, and all of the devices.  The memory, the arena, lies between two
 * pages that cannot be accessed.
 *
 * test-buffers has these cases on mocks, test-kinds on real devices.
 */

#ifndef DMIO_MEMORY_CASES_H
#define DMIO_MEMORY_CASES_H

#include "test-util.h"

#define ARENA_PAGES 64
#define ARENA_SIZE (ARENA_PAGES * PAGE)
#define ARENA_SECTORS (ARENA_SIZE / SECTOR)

#define MAX_DISKS 4
#define DISK_SECTORS 304
#define MANY_SECTORS 3000

struct disk {
  struct block_device *bdev;
  unsigned char *model;         /* what should be on it */
  sector_t unit;                /* its block size */
};

struct world {
  unsigned char *arena, *arena_model;
  unsigned int num_disks;
  struct disk disks[MAX_DISKS];
  sector_t sectors;             /* of each disk */
  sector_t unit;                /* the largest of those of the disks */
  struct rng rng;

  /* Returns the bytes of a disk, until it is called again. */
  const unsigned char *(*look) (struct world *w, unsigned int disk);
  /* Optional: make the disk interrupt requests, which still succeed. */
  void (*disturb) (struct world *w, unsigned int disk);
};

/* Begin with NUM_DISKS disks, whose models have random bytes; the caller
 * opens them with that content.
 */
extern void world_begin (struct world *w, struct rng rng,
                         unsigned int num_disks, sector_t sectors);
/* Set the unit of the world, once its disks are open. */
extern void world_opened (struct world *w);
extern void world_end (struct world *w);

/* All that requests may change is as the models say. */
extern void world_check (struct world *w);

/* All of disk I, or N sectors of it. */
extern struct io_region world_region (const struct world *w, unsigned int i,
                                      sector_t sector, sector_t n);
/* The same of each disk. */
extern void world_regions (const struct world *w, struct io_region *where,
                           sector_t sector, sector_t n);
/* The model of what is there. */
extern unsigned char *world_model (const struct world *w,
                                   const struct io_region *where);
/* Each model has the same bytes there from now on. */
extern void world_wrote (struct world *w, const struct io_region *where,
                         unsigned int n, const void *data);
/* They are zero from now on. */
extern void world_zeroed (struct world *w, const struct io_region *where,
                          unsigned int n);

/* Memory of one type, with a list of its pieces for the model. */
struct piece {
  size_t offset;                /* in the arena */
  size_t length;
};

struct buffer {
  struct dm_io_memory mem;
  struct page_list pl[ARENA_PAGES];
  struct bio_vec bvec[ARENA_SECTORS];
  struct piece pieces[ARENA_SECTORS];
  unsigned int n;               /* of pieces */
  size_t length;                /* of all */
};

/* At random places of the arena. */
extern void make_buffer (struct world *w, struct buffer *b,
                         enum dm_io_mem_type type);

/* The model's way to write the first LENGTH bytes of the buffer to
 * memory TO, and to read them from FROM.
 */
extern void model_gather (const struct world *w, const struct buffer *b,
                          unsigned char *to, size_t length);
extern void model_scatter (struct world *w, const struct buffer *b,
                           const unsigned char *from, size_t length);

/* Random requests with memory of this type. */
extern void world_fuzz (struct world *w, enum dm_io_mem_type type,
                        unsigned int rounds);

/* Particular ones, for disks of so many sectors.  The last is all zero. */
struct world_case {
  const char *name;
  sector_t sectors;
  void (*run) (struct world *w);
};
extern const struct world_case memory_cases[];

#endif /* DMIO_MEMORY_CASES_H */

/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include <config.h>

#include <sys/mman.h>

#include "memory-cases.h"

/*----------------------------------------------------------------------
 * The world
 */

static unsigned char *
new_arena (size_t size)
{
  unsigned char *p = mmap (NULL, size + 2 * PAGE, PROT_NONE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

  g_assert_true (p != MAP_FAILED);
  g_assert_cmpint (mprotect (p + PAGE, size, PROT_READ | PROT_WRITE), ==, 0);
  return p + PAGE;
}

static void
free_arena (unsigned char *arena, size_t size)
{
  g_assert_cmpint (munmap (arena - PAGE, size + 2 * PAGE), ==, 0);
}

void
world_begin (struct world *w, struct rng rng, unsigned int num_disks,
             sector_t sectors)
{
  unsigned int i;

  g_assert_cmpuint (num_disks, <=, MAX_DISKS);
  w->rng = rng;
  w->num_disks = num_disks;
  w->sectors = sectors;
  w->arena = new_arena (ARENA_SIZE);
  w->arena_model = g_malloc (ARENA_SIZE);
  fill (w->arena, ARENA_SIZE, rng_next (&w->rng));
  memcpy (w->arena_model, w->arena, ARENA_SIZE);
  for (i = 0; i < num_disks; i++) {
    w->disks[i].model = g_malloc (sectors * SECTOR);
    fill (w->disks[i].model, sectors * SECTOR, rng_next (&w->rng));
  }
}

void
world_opened (struct world *w)
{
  unsigned int i;

  w->unit = 1;
  for (i = 0; i < w->num_disks; i++) {
    w->disks[i].unit = dm_bdev_block_size (w->disks[i].bdev) / SECTOR;
    w->unit = MAX (w->unit, w->disks[i].unit);
  }
}

void
world_end (struct world *w)
{
  unsigned int i;

  for (i = 0; i < w->num_disks; i++)
    g_free (w->disks[i].model);
  free_arena (w->arena, ARENA_SIZE);
  g_free (w->arena_model);
}

void
world_check (struct world *w)
{
  unsigned int i;

  assert_same (w->arena, w->arena_model, ARENA_SIZE);
  for (i = 0; i < w->num_disks; i++)
    assert_same (w->look (w, i), w->disks[i].model, w->sectors * SECTOR);
}

struct io_region
world_region (const struct world *w, unsigned int i, sector_t sector,
              sector_t n)
{
  return (struct io_region) { w->disks[i].bdev, sector, n };
}

void
world_regions (const struct world *w, struct io_region *where,
               sector_t sector, sector_t n)
{
  unsigned int i;

  for (i = 0; i < w->num_disks; i++)
    where[i] = world_region (w, i, sector, n);
}

unsigned char *
world_model (const struct world *w, const struct io_region *where)
{
  unsigned int i;

  for (i = 0; w->disks[i].bdev != where->bdev; i++)
    g_assert_cmpuint (i, <, w->num_disks);
  return w->disks[i].model + where->sector * SECTOR;
}

void
world_wrote (struct world *w, const struct io_region *where, unsigned int n,
             const void *data)
{
  unsigned int i;

  for (i = 0; i < n; i++)
    memcpy (world_model (w, &where[i]), data, where[i].count * SECTOR);
}

void
world_zeroed (struct world *w, const struct io_region *where, unsigned int n)
{
  unsigned int i;

  for (i = 0; i < n; i++)
    memset (world_model (w, &where[i]), 0, where[i].count * SECTOR);
}

/*----------------------------------------------------------------------
 * Memory of every type
 */

static void
add_piece (struct buffer *b, size_t offset, size_t length)
{
  b->pieces[b->n++] = (struct piece) { offset, length };
  b->length += length;
}

static void
shuffle (struct rng *rng, unsigned int *a, unsigned int n)
{
  unsigned int i, j, tmp;

  for (i = 0; i < n; i++)
    a[i] = i;
  for (i = n; i > 1; i--) {
    j = rng_below (rng, i);
    tmp = a[i-1];
    a[i-1] = a[j];
    a[j] = tmp;
  }
}

static struct page *
page_at (const struct world *w, size_t offset)
{
  return (struct page *) (w->arena + offset);
}

/* All pages of the arena, in any order. */
static void
make_page_list (struct world *w, struct buffer *b)
{
  unsigned int pages[ARENA_PAGES], i;
  unsigned int offset = rng_below (&w->rng, PAGE / SECTOR) * SECTOR;

  shuffle (&w->rng, pages, ARENA_PAGES);
  for (i = 0; i < ARENA_PAGES; i++) {
    b->pl[i].page = page_at (w, pages[i] * PAGE);
    b->pl[i].next = i < ARENA_PAGES - 1 ? &b->pl[i+1] : NULL;
    add_piece (b, pages[i] * PAGE + offset, PAGE - offset);
    if (i == 0)
      offset = 0;
  }
  b->mem.type = DM_IO_PAGE_LIST;
  b->mem.offset = b->pieces[0].offset % PAGE;
  b->mem.ptr.pl = b->pl;
}

/* How many sectors, of at most MOST, are free from sector S on in its
 * page; they are taken.
 */
static unsigned int
take_run (bool *used, unsigned int s, unsigned int most)
{
  unsigned int run = 0, end = s - s % (PAGE / SECTOR) + PAGE / SECTOR;

  while (run < most && s + run < end && !used[s + run])
    used[s + run++] = true;
  return run;
}

/* Runs of sectors in any order, often single ones, that few of them can
 * be joined.
 */
static void
make_bvec (struct world *w, struct buffer *b)
{
  unsigned int order[ARENA_SECTORS], i, s, run, most;
  bool used[ARENA_SECTORS] = { false };

  most = rng_below (&w->rng, 2) ? PAGE / SECTOR : 1;
  shuffle (&w->rng, order, ARENA_SECTORS);
  for (i = 0; i < ARENA_SECTORS; i++) {
    s = order[i];
    run = take_run (used, s, 1 + rng_below (&w->rng, most));
    if (run == 0)
      continue;
    b->bvec[b->n] = (struct bio_vec) {
      .bv_page = page_at (w, s * SECTOR / PAGE * PAGE),
      .bv_len = run * SECTOR, .bv_offset = s * SECTOR % PAGE,
    };
    add_piece (b, s * SECTOR, run * SECTOR);
  }
  b->mem.type = DM_IO_BVEC;
  b->mem.ptr.bvec = b->bvec;
}

/* From any address on, to the end of the arena or less far. */
static void
make_vm (struct world *w, struct buffer *b)
{
  size_t offset = rng_below (&w->rng, ARENA_SIZE / 2);

  if (rng_below (&w->rng, 4) == 0)
    offset -= offset % SECTOR;
  add_piece (b, offset, ARENA_SIZE - offset -
             rng_below (&w->rng, 2) * rng_below (&w->rng, PAGE));
  b->mem.type = DM_IO_VM;
  b->mem.ptr.vm = w->arena + offset;
}

void
make_buffer (struct world *w, struct buffer *b, enum dm_io_mem_type type)
{
  b->n = 0;
  b->length = 0;
  b->mem = (struct dm_io_memory) { 0 };
  if (type == DM_IO_PAGE_LIST)
    make_page_list (w, b);
  else if (type == DM_IO_BVEC)
    make_bvec (w, b);
  else
    make_vm (w, b);
  b->mem.length = rng_below (&w->rng, 2) ? DM_IO_UNCHECKED : b->length;
}

void
model_gather (const struct world *w, const struct buffer *b,
              unsigned char *to, size_t length)
{
  const struct piece *p;
  size_t n;

  for (p = b->pieces; length > 0; p++, to += n, length -= n) {
    n = MIN (p->length, length);
    memcpy (to, w->arena_model + p->offset, n);
  }
}

void
model_scatter (struct world *w, const struct buffer *b,
               const unsigned char *from, size_t length)
{
  const struct piece *p;
  size_t n;

  for (p = b->pieces; length > 0; p++, from += n, length -= n) {
    n = MIN (p->length, length);
    memcpy (w->arena_model + p->offset, from, n);
  }
}

/*----------------------------------------------------------------------
 * Fuzzing
 */

/* N regions on the first N of the shuffled disks. */
static void
choose_regions (struct world *w, struct io_region *where,
                const unsigned int *disks, unsigned int n, sector_t most)
{
  sector_t unit, sector;
  unsigned int i;

  for (i = 0; i < n; i++) {
    unit = w->disks[disks[i]].unit;
    sector = rng_below (&w->rng, w->sectors / unit) * unit;
    where[i] = world_region (
      w, disks[i], sector,
      rng_below (&w->rng, 1 + MIN (most, w->sectors - sector) / unit) * unit);
    if (w->disturb != NULL)
      w->disturb (w, disks[i]);
  }
}

static void
fuzz_once (struct world *w, struct buffer *b, enum dm_io_mem_type type)
{
  struct io_region where[MAX_DISKS];
  struct dm_io_request req = { .op = rng_below (&w->rng, 2) };
  unsigned int disks[MAX_DISKS], i, n = 1;

  make_buffer (w, b, type);
  shuffle (&w->rng, disks, w->num_disks);
  if (req.op == DM_IO_WRITE) {
    n += rng_below (&w->rng, w->num_disks);
    req.flags = rng_below (&w->rng, (DM_IO_FUA | DM_IO_PREFLUSH) + 1);
  }
  req.mem = b->mem;
  choose_regions (w, where, disks, n, b->length / SECTOR);
  g_assert_cmphex (run_request (&req, n, where, rng_below (&w->rng, 2)),
                   ==, 0);
  for (i = 0; i < n; i++) {
    unsigned char *model = world_model (w, &where[i]);

    if (req.op == DM_IO_WRITE)
      model_gather (w, b, model, where[i].count * SECTOR);
    else
      model_scatter (w, b, model, where[i].count * SECTOR);
  }
  world_check (w);
}

void
world_fuzz (struct world *w, enum dm_io_mem_type type, unsigned int rounds)
{
  g_autofree struct buffer *b = g_new (struct buffer, 1);

  while (rounds-- > 0)
    fuzz_once (w, b, type);
}

/*----------------------------------------------------------------------
 * B1, B2: particular shapes, by the functions of old
 */

/* Write a page list to all disks and read it back into another place,
 * with the data ending inside a page.
 */
static void
check_page_list (struct world *w, unsigned int offset, sector_t count)
{
  unsigned char *in_model = w->arena_model + 10 * PAGE;
  struct page_list out[3], in[3];
  struct io_region where[MAX_DISKS];
  unsigned long bits;
  unsigned int i;

  for (i = 0; i < 3; i++) {
    out[i] = (struct page_list) { &out[i+1], page_at (w, i * PAGE) };
    in[i] = (struct page_list) { &in[i+1], page_at (w, (10 + i) * PAGE) };
  }
  out[2].next = in[2].next = NULL;
  world_regions (w, where, 5 * w->unit, count);

  bits = ~0UL;
  g_assert_cmpint (dm_io_sync (w->num_disks, where, WRITE, out, offset,
                               &bits), ==, 0);
  g_assert_cmphex (bits, ==, 0);
  world_wrote (w, where, w->num_disks, w->arena_model + offset);
  world_check (w);

  for (i = 0; i < w->num_disks; i++) {
    memset (in_model, 0xaa, 3 * PAGE);
    memcpy (w->arena + 10 * PAGE, in_model, 3 * PAGE);
    bits = ~0UL;
    g_assert_cmpint (dm_io_sync (1, &where[i], READ, in, offset, &bits),
                     ==, 0);
    g_assert_cmphex (bits, ==, 0);
    memcpy (in_model + offset, w->arena_model + offset, count * SECTOR);
    world_check (w);
  }
}

static void
page_list_offsets (struct world *w)
{
  static const struct { unsigned int offset; sector_t count; } cases[] = {
    { 0, 1 }, { 0, 7 }, { 0, 8 }, { 0, 9 }, { 0, 16 }, { 0, 23 }, { 0, 24 },
    { 512, 1 }, { 512, 7 }, { 512, 8 }, { 512, 16 }, { 512, 22 }, { 512, 23 },
    { 3584, 1 }, { 3584, 2 }, { 3584, 8 }, { 3584, 9 }, { 3584, 10 },
    { 3584, 16 }, { 3584, 17 },
  };
  unsigned int i;

  for (i = 0; i < G_N_ELEMENTS (cases); i++)
    if (cases[i].count % w->unit == 0)
      check_page_list (w, cases[i].offset, cases[i].count);
}

/* More single-sector vectors than IOV_MAX (1024) and than any array the
 * library might keep, none next to the one before in memory.
 */
static void
check_many_vectors (struct world *w, bool async)
{
  const unsigned int n = MANY_SECTORS;
  struct page *pages = new_pages (n / 2), *copy = new_pages (n / 2);
  g_autofree struct bio_vec *bvec = g_new (struct bio_vec, n);
  struct dm_io_request req = { .op = DM_IO_WRITE };
  struct io_region where[MAX_DISKS];
  unsigned int i, d;

  fill (pages, n / 2 * sizeof *pages, rng_next (&w->rng));
  memcpy (copy, pages, n / 2 * sizeof *pages);
  for (i = 0; i < n; i++)
    bvec[i] = (struct bio_vec) {
      &pages[n / 2 - 1 - i / 2], SECTOR, i % 2 ? 2048 : 512
    };
  world_regions (w, where, 0, n);
  req.mem = (struct dm_io_memory) {
    .type = DM_IO_BVEC, .length = n * SECTOR, .ptr.bvec = bvec,
  };
  g_assert_cmphex (run_request (&req, w->num_disks, where, async), ==, 0);
  for (d = 0; d < w->num_disks; d++)
    for (i = 0; i < n; i++)
      memcpy (w->disks[d].model + i * SECTOR,
              bvec[i].bv_page->data + bvec[i].bv_offset, SECTOR);
  world_check (w);
  assert_same (pages, copy, n / 2 * sizeof *pages);

  req.op = DM_IO_READ;
  for (d = 0; d < w->num_disks; d++) {
    for (i = 0; i < n; i++)
      memset (bvec[i].bv_page->data + bvec[i].bv_offset, 0xaa, SECTOR);
    g_assert_cmphex (run_request (&req, 1, &where[d], async), ==, 0);
    assert_same (pages, copy, n / 2 * sizeof *pages);
  }
  free (pages);
  free (copy);
}

static void
many_vectors (struct world *w)
{
  check_many_vectors (w, false);
  check_many_vectors (w, true);
}

/* Not more is used of the vectors than the count needs: what follows
 * the last one is no vector.
 */
static void
partial_last_vector (struct world *w)
{
  const size_t count = w->unit == 1 ? 9 : 8, first = PAGE - SECTOR;
  g_autofree struct bio_vec *bvec = g_new (struct bio_vec, 2);
  struct io_region where[MAX_DISKS];
  unsigned char expected[9 * SECTOR];

  bvec[0] = (struct bio_vec) { page_at (w, 0), first, SECTOR };
  bvec[1] = (struct bio_vec) { page_at (w, 5 * PAGE), PAGE, 0 };
  world_regions (w, where, 0, count);
  g_assert_cmpint (dm_io_sync_bvec (w->num_disks, where, WRITE, bvec, NULL),
                   ==, 0);
  memcpy (expected, w->arena_model + SECTOR, first);
  memcpy (expected + first, w->arena_model + 5 * PAGE,
          count * SECTOR - first);
  world_wrote (w, where, w->num_disks, expected);
  world_check (w);
}

/*----------------------------------------------------------------------
 * B3
 */

/* The buffer touches the guard page before or after the arena. */
static void
odd_addresses (struct world *w)
{
  static const size_t shifts[] = {
    0, 1, 2, 3, 7, 8, 255, 511, 512, 513, 1023, 4095, 4096,
  };
  const sector_t count = w->unit == 1 ? 20 : 24;
  const size_t length = count * SECTOR;
  struct io_region where[MAX_DISKS];
  size_t offset;
  unsigned int i, d;

  for (i = 0; i < 2 * G_N_ELEMENTS (shifts); i++) {
    offset = shifts[i / 2];
    if (i % 2)
      offset = ARENA_SIZE - length - offset;
    world_regions (w, where, i * w->unit, count);
    g_assert_cmpint (dm_io_sync_vm (w->num_disks, where, WRITE,
                                    w->arena + offset, NULL), ==, 0);
    world_wrote (w, where, w->num_disks, w->arena_model + offset);
    world_check (w);
    for (d = 0; d < w->num_disks; d++) {
      where[d].sector = w->sectors - count - i * w->unit;
      g_assert_cmpint (dm_io_sync_vm (1, &where[d], READ, w->arena + offset,
                                      NULL), ==, 0);
      memcpy (w->arena_model + offset, world_model (w, &where[d]), length);
      world_check (w);
    }
  }
}

/*----------------------------------------------------------------------
 * B4, B5
 */

/* Also two regions of one device. */
static void
starts_and_counts (struct world *w)
{
  static const struct { unsigned int disk, start, count; } cases[] = {
    { 0, 0, 3 }, { 0, 3, 11 }, { 1, 0, 1 }, { 2, 7, 0 }, { 3, 14, 20 },
  };
  unsigned char *data = w->arena + 77;
  struct io_region where[G_N_ELEMENTS (cases)];
  unsigned int i;

  for (i = 0; i < G_N_ELEMENTS (cases); i++)
    where[i] = world_region (w, cases[i].disk % w->num_disks,
                             cases[i].start * w->unit,
                             cases[i].count * w->unit);
  where[2].sector = w->sectors - w->unit;
  g_assert_cmpint (dm_io_sync_vm (G_N_ELEMENTS (where), where, WRITE, data,
                                  NULL), ==, 0);
  world_wrote (w, where, G_N_ELEMENTS (where), w->arena_model + 77);
  world_check (w);
}

const struct world_case memory_cases[] = {
  { "b1-page-list-offsets", DISK_SECTORS, page_list_offsets },
  { "b2-more-than-iov-max", MANY_SECTORS, many_vectors },
  { "b2-partial-last-vector", DISK_SECTORS, partial_last_vector },
  { "b3-odd-addresses", DISK_SECTORS, odd_addresses },
  { "b5-starts-and-counts", DISK_SECTORS, starts_and_counts },
  { NULL, 0, NULL },
};

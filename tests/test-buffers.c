/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* The memory of requests.
 *
 * B1 page lists, B2 bio vectors, B3 buffers at odd addresses, B4 each
 * region gets all data from the start, B5 regions with different starts
 * and counts; and what memory.h promises to the rest of the library.
 *
 * Everything is compared with a model that uses memcpy: all of the
 * memory that requests point into, so that bytes beside their data are
 * guards, and all of the devices.  The memory lies between two pages
 * that cannot be accessed.
 */

#include <config.h>

#include <sys/mman.h>

#include "test-util.h"

#define ARENA_PAGES 64
#define ARENA_SIZE (ARENA_PAGES * PAGE)
#define ARENA_SECTORS (ARENA_SIZE / SECTOR)
#define DISK_SECTORS 300
#define DISK_SIZE (DISK_SECTORS * SECTOR)
#define DISKS 4

/* Devices with and without bounce pages, with and without workers. */
static const struct mock_options disk_options[DISKS] = {
  { .max_trace = 1 },
  { .max_trace = 1, .mem_align = 512 },
  { .max_trace = 1, .mem_align = 4096, .always_waits = true },
  { .max_trace = 1, .always_waits = true },
};

struct world {
  unsigned char *arena, *arena_model;
  struct block_device *disks[DISKS];
  unsigned char *disk_models[DISKS];
  struct rng rng;
};

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

static struct world *
new_world (struct rng rng)
{
  struct world *w = g_new0 (struct world, 1);
  unsigned int i;

  w->rng = rng;
  w->arena = new_arena (ARENA_SIZE);
  w->arena_model = g_malloc (ARENA_SIZE);
  fill (w->arena, ARENA_SIZE, rng_next (&w->rng));
  memcpy (w->arena_model, w->arena, ARENA_SIZE);
  for (i = 0; i < DISKS; i++) {
    w->disks[i] = mock_open ("disk", DISK_SIZE, &disk_options[i]);
    w->disk_models[i] = g_malloc (DISK_SIZE);
    fill (w->disk_models[i], DISK_SIZE, rng_next (&w->rng));
    mock_set (w->disks[i], 0, w->disk_models[i], DISK_SIZE);
  }
  return w;
}

static void
free_world (struct world *w)
{
  unsigned int i;

  for (i = 0; i < DISKS; i++) {
    mock_close (w->disks[i]);
    g_free (w->disk_models[i]);
  }
  free_arena (w->arena, ARENA_SIZE);
  g_free (w->arena_model);
  g_free (w);
}

/* All that requests may change is as the model says. */
static void
check_world (const struct world *w)
{
  unsigned int i;

  assert_same (w->arena, w->arena_model, ARENA_SIZE);
  for (i = 0; i < DISKS; i++)
    assert_same (mock_data (w->disks[i]), w->disk_models[i], DISK_SIZE);
}

/*----------------------------------------------------------------------
 * Memory of every type, with a list of its pieces for the model
 */

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

static void
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

/* The model's way to write the first LENGTH bytes of the buffer to
 * memory TO, and to read them from FROM.
 */
static void
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

static void
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

/* Make transfers of the disk short or interrupted, now and then. */
static void
disturb (struct world *w, unsigned int disk)
{
  struct mock_fault fault = {
    .ops = MOCK_ANY, .times = 1 + rng_below (&w->rng, 20),
    .after = rng_below (&w->rng, 3),
  };

  mock_clear_faults (w->disks[disk]);
  switch (rng_below (&w->rng, 4)) {
  case 0:
    fault.shorten = true;
    fault.transfer = disk_options[disk].mem_align > 1 ?
      SECTOR * (1 + rng_below (&w->rng, 17)) :
      1 + rng_below (&w->rng, 3 * PAGE);
    mock_fault (w->disks[disk], &fault);
    break;
  case 1:
    fault.error = EINTR;
    mock_fault (w->disks[disk], &fault);
    break;
  }
}

/* N regions on the first N of the shuffled disks. */
static void
choose_regions (struct world *w, struct io_region *where,
                const unsigned int *disks, unsigned int n, sector_t most)
{
  unsigned int i;

  for (i = 0; i < n; i++) {
    where[i].bdev = w->disks[disks[i]];
    where[i].sector = rng_below (&w->rng, DISK_SECTORS);
    where[i].count = rng_below (&w->rng, 1 + MIN (
      most, DISK_SECTORS - where[i].sector));
    disturb (w, disks[i]);
  }
}

static void
fuzz_once (struct world *w, struct buffer *b, enum dm_io_mem_type type)
{
  struct io_region where[DISKS];
  struct dm_io_request req = { .op = rng_below (&w->rng, 2) };
  unsigned int disks[DISKS], i, n = 1;

  make_buffer (w, b, type);
  shuffle (&w->rng, disks, DISKS);
  if (req.op == DM_IO_WRITE) {
    n += rng_below (&w->rng, DISKS);
    req.flags = rng_below (&w->rng, (DM_IO_FUA | DM_IO_PREFLUSH) + 1);
  }
  req.mem = b->mem;
  choose_regions (w, where, disks, n, b->length / SECTOR);
  g_assert_cmphex (run_request (&req, n, where, rng_below (&w->rng, 2)),
                   ==, 0);
  for (i = 0; i < n; i++) {
    unsigned char *disk = w->disk_models[disks[i]] + where[i].sector * SECTOR;

    if (req.op == DM_IO_WRITE)
      model_gather (w, b, disk, where[i].count * SECTOR);
    else
      model_scatter (w, b, disk, where[i].count * SECTOR);
  }
  check_world (w);
}

static void
fuzz (enum dm_io_mem_type type, struct rng rng, unsigned int rounds)
{
  struct world *w = new_world (rng);
  struct buffer *b = g_new (struct buffer, 1);

  while (rounds-- > 0)
    fuzz_once (w, b, type);
  g_free (b);
  free_world (w);
}

static void
test_fuzz (gconstpointer type)
{
  fuzz (GPOINTER_TO_INT (type), (struct rng) { 1 }, 150);
  fuzz (GPOINTER_TO_INT (type), rng_random (), 150);
}

/*----------------------------------------------------------------------
 * B1, B2: particular shapes, by the functions of old
 */

/* Write a page list to three disks and read it back into another place,
 * with the data ending inside a page.
 */
static void
check_page_list (struct world *w, unsigned int offset, sector_t count)
{
  struct page_list out[3], in[3];
  struct io_region where[3];
  struct piece piece = { offset, count * SECTOR };
  unsigned long bits;
  unsigned int i;

  for (i = 0; i < 3; i++) {
    out[i] = (struct page_list) { &out[i+1], page_at (w, i * PAGE) };
    in[i] = (struct page_list) { &in[i+1], page_at (w, (10 + i) * PAGE) };
    where[i] = (struct io_region) { w->disks[i], 5, count };
  }
  out[2].next = in[2].next = NULL;

  bits = ~0UL;
  g_assert_cmpint (dm_io_sync (3, where, WRITE, out, offset, &bits), ==, 0);
  g_assert_cmphex (bits, ==, 0);
  for (i = 0; i < 3; i++)
    memcpy (w->disk_models[i] + 5 * SECTOR, w->arena_model + piece.offset,
            piece.length);
  check_world (w);

  g_assert_cmpint (dm_io_sync (1, &where[2], READ, in, offset, &bits), ==, 0);
  memcpy (w->arena_model + 10 * PAGE + offset,
          w->arena_model + piece.offset, piece.length);
  check_world (w);
}

static void
test_b1_page_list_offsets (void)
{
  static const struct { unsigned int offset; sector_t count; } cases[] = {
    { 0, 1 }, { 0, 7 }, { 0, 8 }, { 0, 9 }, { 0, 23 }, { 0, 24 },
    { 512, 1 }, { 512, 7 }, { 512, 8 }, { 512, 22 }, { 512, 23 },
    { 3584, 1 }, { 3584, 2 }, { 3584, 9 }, { 3584, 10 }, { 3584, 17 },
  };
  struct world *w = new_world ((struct rng) { 2 });
  unsigned int i;

  for (i = 0; i < G_N_ELEMENTS (cases); i++)
    check_page_list (w, cases[i].offset, cases[i].count);
  free_world (w);
}

/* More single-sector vectors than IOV_MAX (1024) and than any array the
 * library might keep, none next to the one before in memory.
 */
#define MANY 3000

static void
check_many_vectors (size_t mem_align, bool async)
{
  const struct mock_options options = { .mem_align = mem_align };
  struct page *pages = new_pages (MANY / 2), *copy = new_pages (MANY / 2);
  g_autofree struct bio_vec *bvec = g_new (struct bio_vec, MANY);
  struct dm_io_request req = { .op = DM_IO_WRITE };
  struct io_region where[2];
  unsigned int i;

  fill (pages, MANY / 2 * sizeof *pages, mem_align);
  memcpy (copy, pages, MANY / 2 * sizeof *pages);
  for (i = 0; i < MANY; i++)
    bvec[i] = (struct bio_vec) {
      &pages[MANY / 2 - 1 - i / 2], SECTOR, i % 2 ? 2048 : 512
    };
  open_mocks (where, 2, MANY, &options);
  req.mem = (struct dm_io_memory) {
    .type = DM_IO_BVEC, .length = MANY * SECTOR, .ptr.bvec = bvec,
  };
  g_assert_cmphex (run_request (&req, 2, where, async), ==, 0);
  for (i = 0; i < MANY; i++)
    assert_same (mock_data (where[1].bdev) + i * SECTOR,
                 bvec[i].bv_page->data + bvec[i].bv_offset, SECTOR);
  assert_same (mock_data (where[0].bdev), mock_data (where[1].bdev),
               MANY * SECTOR);
  assert_same (pages, copy, MANY / 2 * sizeof *pages);

  for (i = 0; i < MANY; i++)
    memset (bvec[i].bv_page->data + bvec[i].bv_offset, 0xaa, SECTOR);
  req.op = DM_IO_READ;
  g_assert_cmphex (run_request (&req, 1, where, async), ==, 0);
  assert_same (pages, copy, MANY / 2 * sizeof *pages);
  close_mocks (where, 2);
  free (pages);
  free (copy);
}

static void
test_b2_more_than_iov_max (void)
{
  static const size_t aligns[] = { 1, 512, 4096 };
  unsigned int i;

  for (i = 0; i < G_N_ELEMENTS (aligns); i++) {
    check_many_vectors (aligns[i], false);
    check_many_vectors (aligns[i], true);
  }
}

/* Not more is used of the vectors than the count needs: what follows
 * the last one is no vector.
 */
static void
test_b2_partial_last_vector (void)
{
  struct world *w = new_world ((struct rng) { 3 });
  struct bio_vec *bvec = g_new (struct bio_vec, 2);
  struct io_region where = { w->disks[0], 0, 9 };

  bvec[0] = (struct bio_vec) { page_at (w, 0), PAGE - SECTOR, SECTOR };
  bvec[1] = (struct bio_vec) { page_at (w, 5 * PAGE), PAGE, 0 };
  g_assert_cmpint (dm_io_sync_bvec (1, &where, WRITE, bvec, NULL), ==, 0);
  memcpy (w->disk_models[0], w->arena_model + SECTOR, PAGE - SECTOR);
  memcpy (w->disk_models[0] + PAGE - SECTOR, w->arena_model + 5 * PAGE,
          2 * SECTOR);
  check_world (w);
  g_free (bvec);
  free_world (w);
}

/*----------------------------------------------------------------------
 * B3
 */

/* The buffer touches the guard page before or after the arena. */
static void
test_b3_odd_addresses (void)
{
  static const size_t shifts[] = {
    0, 1, 2, 3, 7, 8, 255, 511, 512, 513, 1023, 4095, 4096,
  };
  const size_t length = 20 * SECTOR;
  struct world *w = new_world ((struct rng) { 4 });
  struct io_region where[DISKS];
  size_t offset;
  unsigned int i, d;

  for (i = 0; i < 2 * G_N_ELEMENTS (shifts); i++) {
    offset = shifts[i / 2];
    if (i % 2)
      offset = ARENA_SIZE - length - offset;
    for (d = 0; d < DISKS; d++) {
      where[d] = (struct io_region) { w->disks[d], i, 20 };
      memcpy (w->disk_models[d] + i * SECTOR, w->arena_model + offset,
              length);
    }
    g_assert_cmpint (dm_io_sync_vm (DISKS, where, WRITE, w->arena + offset,
                                    NULL), ==, 0);
    check_world (w);
    for (d = 0; d < DISKS; d++) {
      where[d].sector = DISK_SECTORS - 20 - i;
      g_assert_cmpint (dm_io_sync_vm (1, &where[d], READ, w->arena + offset,
                                      NULL), ==, 0);
      memcpy (w->arena_model + offset,
              w->disk_models[d] + where[d].sector * SECTOR, length);
      check_world (w);
    }
  }
  free_world (w);
}

/*----------------------------------------------------------------------
 * B4, B5
 */

/* As many legs as there can be: all get the same. */
static void
test_b4_all_legs (void)
{
  struct world *w = new_world ((struct rng) { 5 });
  struct buffer *b = g_new (struct buffer, 1);
  struct io_region where[DM_IO_MAX_REGIONS];
  unsigned char expected[40 * SECTOR];
  struct dm_io_request req = { .op = DM_IO_WRITE };
  unsigned int i;
  int type;

  for (i = 0; i < DM_IO_MAX_REGIONS; i++)
    open_mocks (&where[i], 1, 40, &disk_options[i % DISKS]);
  for (type = DM_IO_PAGE_LIST; type <= DM_IO_VM; type++) {
    make_buffer (w, b, type);
    model_gather (w, b, expected, sizeof expected);
    req.mem = b->mem;
    g_assert_cmphex (run_request (&req, DM_IO_MAX_REGIONS, where, false),
                     ==, 0);
    for (i = 0; i < DM_IO_MAX_REGIONS; i++)
      assert_same (mock_data (where[i].bdev), expected, sizeof expected);
    check_world (w);
  }
  close_mocks (where, DM_IO_MAX_REGIONS);
  g_free (b);
  free_world (w);
}

/* Also two regions of one device. */
static void
test_b5_starts_and_counts (void)
{
  struct world *w = new_world ((struct rng) { 6 });
  struct io_region where[] = {
    { w->disks[0], 0, 3 }, { w->disks[0], 3, 11 },
    { w->disks[1], DISK_SECTORS - 1, 1 }, { w->disks[2], 7, 0 },
    { w->disks[3], 100, 200 },
  };
  unsigned char *data = w->arena + 77;
  unsigned int i, d;

  g_assert_cmpint (dm_io_sync_vm (G_N_ELEMENTS (where), where, WRITE, data,
                                  NULL), ==, 0);
  for (i = 0; i < G_N_ELEMENTS (where); i++)
    for (d = 0; d < DISKS; d++)
      if (where[i].bdev == w->disks[d])
        memcpy (w->disk_models[d] + where[i].sector * SECTOR, data,
                where[i].count * SECTOR);
  check_world (w);
  free_world (w);
}

/*----------------------------------------------------------------------
 * memory.h
 */

/* Walk through a buffer in steps of any size, looking at it through any
 * number of iovecs.
 */
static void
check_cursor (struct world *w, const struct dm_io_memory *mem,
              const unsigned char *expected, size_t length)
{
  struct memory_cursor c = memory_begin (mem);
  struct iovec iov[20];
  size_t done = 0, seen, want;
  int i, n, max;

  while (done < length) {
    want = 1 + rng_below (&w->rng, length - done);
    max = 1 + rng_below (&w->rng, G_N_ELEMENTS (iov));
    n = memory_iovecs (&c, want, iov, max);
    g_assert_cmpint (n, >, 0);
    g_assert_cmpint (n, <=, max);
    seen = 0;
    for (i = 0; i < n; i++) {
      assert_same (iov[i].iov_base, expected + done + seen, iov[i].iov_len);
      seen += iov[i].iov_len;
    }
    g_assert_cmpuint (seen, <=, want);
    if (n < max)
      g_assert_cmpuint (seen, ==, want);
    want = 1 + rng_below (&w->rng, want);
    memory_advance (&c, want);
    done += want;
  }
}

static void
test_memory_cursor (void)
{
  struct world *w = new_world (rng_random ());
  struct buffer *b = g_new (struct buffer, 1);
  g_autofree unsigned char *expected = g_malloc (ARENA_SIZE);
  struct bio_vec vectors[ARENA_SECTORS + 1];
  uint64_t length;
  size_t n, i;
  int type;

  for (i = 0; i < 30; i++) {
    type = i % 3;
    make_buffer (w, b, type);
    model_gather (w, b, expected, b->length);
    check_cursor (w, &b->mem, expected, b->length);
    if (type == DM_IO_VM)
      continue;
    length = SECTOR * (1 + rng_below (&w->rng, b->length / SECTOR));
    n = memory_count_vectors (&b->mem, length);
    g_assert_cmpuint (n, <=, ARENA_SECTORS);
    memset (vectors, 0xaa, sizeof vectors);
    memory_to_vectors (&b->mem, length, vectors);
    g_assert_cmphex (vectors[n].bv_len, ==, 0xaaaaaaaa);
    memset (b->pl, 0xaa, sizeof b->pl);
    memset (b->bvec, 0xaa, sizeof b->bvec);
    g_assert_cmpint (memory_check (&b->mem, length), ==, 0);
    check_cursor (w, &b->mem, expected, length);
  }
  g_free (b);
  free_world (w);
}

/* Pages that happen to be neighbours are one iovec. */
static void
test_memory_joins_neighbours (void)
{
  struct page *pages = new_pages (4);
  struct page_list pl[4];
  struct dm_io_memory mem = {
    .type = DM_IO_PAGE_LIST, .offset = SECTOR, .ptr.pl = pl,
  };
  struct memory_cursor c;
  struct iovec iov[4];
  unsigned int i;

  for (i = 0; i < 4; i++)
    pl[i] = (struct page_list) { i < 3 ? &pl[i+1] : NULL, &pages[i] };
  c = memory_begin (&mem);
  g_assert_cmpint (memory_iovecs (&c, 3 * PAGE, iov, 4), ==, 1);
  g_assert_true (iov[0].iov_base == pages->data + SECTOR);
  g_assert_cmpuint (iov[0].iov_len, ==, 3 * PAGE);
  pl[1].page = &pages[3];
  g_assert_cmpint (memory_iovecs (&c, 3 * PAGE, iov, 4), ==, 3);
  free (pages);
}

static void
test_memory_clear (void)
{
  struct world *w = new_world ((struct rng) { 7 });
  struct buffer *b = g_new (struct buffer, 1);
  g_autofree unsigned char *zeroes = g_malloc0 (ARENA_SIZE);
  int type;

  for (type = DM_IO_PAGE_LIST; type <= DM_IO_VM; type++) {
    fill (w->arena, ARENA_SIZE, type);
    memcpy (w->arena_model, w->arena, ARENA_SIZE);
    make_buffer (w, b, type);
    memory_clear (memory_begin (&b->mem), 5 * PAGE + 17);
    model_scatter (w, b, zeroes, 5 * PAGE + 17);
    check_world (w);
  }
  g_free (b);
  free_world (w);
}

int
main (int argc, char *argv[])
{
  test_init (&argc, &argv);
  g_test_add_data_func ("/buffers/b1-b4-b5-fuzz-page-lists",
                        GINT_TO_POINTER (DM_IO_PAGE_LIST), test_fuzz);
  g_test_add_data_func ("/buffers/b2-b4-b5-fuzz-vectors",
                        GINT_TO_POINTER (DM_IO_BVEC), test_fuzz);
  g_test_add_data_func ("/buffers/b3-b4-b5-fuzz-vm",
                        GINT_TO_POINTER (DM_IO_VM), test_fuzz);
  g_test_add_func ("/buffers/b1-page-list-offsets",
                   test_b1_page_list_offsets);
  g_test_add_func ("/buffers/b2-more-than-iov-max",
                   test_b2_more_than_iov_max);
  g_test_add_func ("/buffers/b2-partial-last-vector",
                   test_b2_partial_last_vector);
  g_test_add_func ("/buffers/b3-odd-addresses", test_b3_odd_addresses);
  g_test_add_func ("/buffers/b4-all-legs", test_b4_all_legs);
  g_test_add_func ("/buffers/b5-starts-and-counts",
                   test_b5_starts_and_counts);
  g_test_add_func ("/buffers/memory-cursor", test_memory_cursor);
  g_test_add_func ("/buffers/memory-joins-neighbours",
                   test_memory_joins_neighbours);
  g_test_add_func ("/buffers/memory-clear", test_memory_clear);
  return g_test_run ();
}

/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* The memory of requests, on mocks: the cases of memory-cases.h with short
 * and interrupted transfers, 64 regions (B4), and what memory.h promises to
 * the rest of the library.
 */

#include <config.h>

#include "memory-cases.h"

#define DISKS MAX_DISKS

/* Devices with and without bounce pages, with and without workers. */
static const struct mock_options disk_options[DISKS] = {
  { .max_trace = 1 },
  { .max_trace = 1, .mem_align = 512 },
  { .max_trace = 1, .mem_align = 4096, .always_waits = true },
  { .max_trace = 1, .always_waits = true },
};

static const unsigned char *
look (struct world *w, unsigned int disk)
{
  return mock_data (w->disks[disk].bdev);
}

/* Make transfers of the disk short or interrupted, now and then. */
static void
disturb (struct world *w, unsigned int disk)
{
  struct block_device *bdev = w->disks[disk].bdev;
  struct mock_fault fault = {
    .ops = MOCK_ANY, .times = 1 + rng_below (&w->rng, 20),
    .after = rng_below (&w->rng, 3),
  };

  mock_clear_faults (bdev);
  switch (rng_below (&w->rng, 4)) {
  case 0:
    fault.shorten = true;
    fault.transfer = bdev->mem_align > 1 ?
      SECTOR * (1 + rng_below (&w->rng, 17)) :
      1 + rng_below (&w->rng, 3 * PAGE);
    mock_fault (bdev, &fault);
    break;
  case 1:
    fault.error = EINTR;
    mock_fault (bdev, &fault);
    break;
  }
}

static struct world *
new_world (struct rng rng, sector_t sectors)
{
  struct world *w = g_new0 (struct world, 1);
  unsigned int i;

  world_begin (w, rng, DISKS, sectors);
  w->look = look;
  for (i = 0; i < DISKS; i++) {
    w->disks[i].bdev = mock_open ("disk", sectors * SECTOR, &disk_options[i]);
    mock_set (w->disks[i].bdev, 0, w->disks[i].model, sectors * SECTOR);
  }
  world_opened (w);
  return w;
}

static void
free_world (struct world *w)
{
  unsigned int i;

  for (i = 0; i < DISKS; i++)
    mock_close (w->disks[i].bdev);
  world_end (w);
  g_free (w);
}

static void
fuzz (enum dm_io_mem_type type, struct rng rng)
{
  struct world *w = new_world (rng, DISK_SECTORS);

  w->disturb = disturb;
  world_fuzz (w, type, 150);
  free_world (w);
}

static void
test_fuzz (gconstpointer type)
{
  fuzz (GPOINTER_TO_INT (type), (struct rng) { 1 });
  fuzz (GPOINTER_TO_INT (type), rng_random ());
}

static void
test_case (gconstpointer data)
{
  const struct world_case *c = data;
  struct world *w = new_world ((struct rng) { 2 }, c->sectors);

  c->run (w);
  free_world (w);
}

/*----------------------------------------------------------------------
 * B4
 */

/* As many legs as there can be: all get the same. */
static void
test_b4_all_legs (void)
{
  struct world *w = new_world ((struct rng) { 5 }, DISK_SECTORS);
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
    world_check (w);
  }
  close_mocks (where, DM_IO_MAX_REGIONS);
  g_free (b);
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
  struct world *w = new_world (rng_random (), DISK_SECTORS);
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
  struct world *w = new_world ((struct rng) { 7 }, DISK_SECTORS);
  struct buffer *b = g_new (struct buffer, 1);
  g_autofree unsigned char *zeroes = g_malloc0 (ARENA_SIZE);
  int type;

  for (type = DM_IO_PAGE_LIST; type <= DM_IO_VM; type++) {
    fill (w->arena, ARENA_SIZE, type);
    memcpy (w->arena_model, w->arena, ARENA_SIZE);
    make_buffer (w, b, type);
    memory_clear (memory_begin (&b->mem), 5 * PAGE + 17);
    model_scatter (w, b, zeroes, 5 * PAGE + 17);
    world_check (w);
  }
  g_free (b);
  free_world (w);
}

int
main (int argc, char *argv[])
{
  const struct world_case *c;

  test_init (&argc, &argv);
  g_test_add_data_func ("/buffers/b1-b4-b5-fuzz-page-lists",
                        GINT_TO_POINTER (DM_IO_PAGE_LIST), test_fuzz);
  g_test_add_data_func ("/buffers/b2-b4-b5-fuzz-vectors",
                        GINT_TO_POINTER (DM_IO_BVEC), test_fuzz);
  g_test_add_data_func ("/buffers/b3-b4-b5-fuzz-vm",
                        GINT_TO_POINTER (DM_IO_VM), test_fuzz);
  for (c = memory_cases; c->name != NULL; c++) {
    g_autofree char *path = g_strconcat ("/buffers/", c->name, NULL);

    g_test_add_data_func (path, c, test_case);
  }
  g_test_add_func ("/buffers/b4-all-legs", test_b4_all_legs);
  g_test_add_func ("/buffers/memory-cursor", test_memory_cursor);
  g_test_add_func ("/buffers/memory-joins-neighbours",
                   test_memory_joins_neighbours);
  g_test_add_func ("/buffers/memory-clear", test_memory_clear);
  return g_test_run ();
}

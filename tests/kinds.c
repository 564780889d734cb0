/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include <config.h>

#include <fcntl.h>
#include <sys/stat.h>

#include <glib/gstdio.h>

#include "kinds.h"
#include "log-lines.h"
#include "nbdkit-server.h"

/* A file, and how the library gets at it. */
struct region {
  char *path;
  enum kind kind;
  struct nbdkit_server server;
};
static struct region regions[NUM_KINDS][MAX_REGIONS];
static char *dir;               /* of the files */
static bool no_direct;

/*----------------------------------------------------------------------
 * A world of regions
 */

/* The bytes of the file, whoever wrote them. */
static const unsigned char *
look (struct world *w, unsigned int disk)
{
  struct kinds *k = to_kinds (w);
  size_t size = w->sectors * SECTOR;
  int fd = open (k->regions[disk]->path, O_RDONLY | O_CLOEXEC);

  g_assert_cmpint (fd, >=, 0);
  g_assert_cmpint (pread (fd, k->contents, size, 0), ==, size);
  close (fd);
  return k->contents;
}

/* Make that its contents. */
static void
write_file (const char *path, const void *contents, size_t size)
{
  int fd = open (path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

  g_assert_cmpint (fd, >=, 0);
  g_assert_cmpint (pwrite (fd, contents, size, 0), ==, size);
  close (fd);
}

static struct block_device *
open_region (const struct region *r, unsigned int flags)
{
  const struct dm_bdev_options options = {
    .flags = flags | (r->kind == DIRECT ? DM_BDEV_DIRECT : 0)
  };

  return open_device (r->server.pid != 0 ? r->server.uri : r->path,
                      &options);
}

/* Each of a kind once. */
static void
choose_kinds (struct kinds *k)
{
  unsigned int used[NUM_KINDS] = { 0 }, i;

  for (i = 0; i < k->setup->n; i++)
    k->regions[i] = &regions[k->setup->kinds[i]][used[k->setup->kinds[i]]++];
}

struct kinds *
kinds_open (const struct setup *setup, sector_t sectors)
{
  struct kinds *k = g_new0 (struct kinds, 1);
  struct world *w = &k->world;
  unsigned int i;

  k->setup = setup;
  k->contents = g_malloc (sectors * SECTOR);
  done_init (&k->refused);
  choose_kinds (k);
  world_begin (w, rng_random (), setup->n, sectors);
  w->look = look;
  for (i = 0; i < setup->n; i++) {
    write_file (k->regions[i]->path, w->disks[i].model, sectors * SECTOR);
    w->disks[i].bdev = open_region (k->regions[i], 0);
    g_assert_cmpuint (dm_bdev_sectors (w->disks[i].bdev), ==, sectors);
    g_assert_false (dm_bdev_read_only (w->disks[i].bdev));
  }
  world_opened (w);
  log_lines_clear ();
  return k;
}

void
kinds_close (struct kinds *k)
{
  struct world *w = &k->world;
  unsigned int i;

  for (i = 0; i < w->num_disks; i++) {
    dm_bdev_close (w->disks[i].bdev);
    if (k->regions[i]->server.pid != 0)
      g_unlink (k->regions[i]->server.fail);
  }
  g_assert_cmpuint (done_calls (&k->refused), ==, 0);
  world_end (w);
  g_free (k->contents);
  g_free (k);
}

void
kinds_reopen (struct world *w, unsigned int disk, unsigned int flags)
{
  dm_bdev_close (w->disks[disk].bdev);
  w->disks[disk].bdev = open_region (to_kinds (w)->regions[disk], flags);
}

void
choose_most (const struct world *w, struct io_region *where, sector_t count)
{
  unsigned int i;

  for (i = 0; i < DM_IO_MAX_REGIONS; i++)
    where[i] = world_region (w, i % w->num_disks,
                             i / w->num_disks * count * w->unit,
                             count * w->unit);
}

void
break_disk (struct world *w, unsigned int disk)
{
  const struct region *r = to_kinds (w)->regions[disk];

  if (r->server.pid != 0)
    write_file (r->server.fail, "", 0);
  else
    g_assert_cmpint (truncate (r->path, w->sectors / 2 * SECTOR), ==, 0);
}

void
check_others (struct world *w, unsigned int broken)
{
  unsigned int i;

  for (i = 0; i < w->num_disks; i++)
    if (i != broken)
      assert_same (look (w, i), w->disks[i].model, w->sectors * SECTOR);
}

uint64_t
space_of (struct world *w, unsigned int disk)
{
  struct stat st;

  g_assert_cmpint (stat (to_kinds (w)->regions[disk]->path, &st), ==, 0);
  return st.st_blocks;
}

/*----------------------------------------------------------------------
 * Files and servers
 */

void
kinds_begin (void)
{
  static const char *const names[] = { "cached", "direct", "nbd", "nbd-4k" };
  g_autoptr (GError) error = NULL;
  struct region *r;
  unsigned int i, j;
  int fd;

  dir = g_dir_make_tmp ("dmio-XXXXXX", &error);
  g_assert_no_error (error);
  for (i = 0; i < NUM_KINDS; i++)
    for (j = 0; j < MAX_REGIONS; j++) {
      r = &regions[i][j];
      r->kind = i;
      r->path = g_strdup_printf ("%s/%s%u", dir, names[i], j);
      write_file (r->path, "", 0);
      if (i == NBD || (i == NBD_4K && j == 0))
        nbdkit_server_start (&r->server, r->path, i == NBD_4K ? 4096 : 1);
    }
  fd = open (regions[DIRECT][0].path, O_RDONLY | O_DIRECT | O_CLOEXEC);
  no_direct = fd == -1 && errno == EINVAL;
  if (fd != -1)
    close (fd);
}

void
kinds_end (void)
{
  struct region *r;
  unsigned int i, j;

  for (i = 0; i < NUM_KINDS; i++)
    for (j = 0; j < MAX_REGIONS; j++) {
      r = &regions[i][j];
      nbdkit_server_stop (&r->server);
      g_assert_cmpint (g_unlink (r->path), ==, 0);
      g_free (r->path);
    }
  g_assert_cmpint (g_rmdir (dir), ==, 0);
  g_free (dir);
}

bool
kinds_have_direct (void)
{
  return !no_direct;
}
